"""NST: the formula of every kernel, hand values, and what it does not see of a channel."""

from math import exp
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkd_plugin.losses import NSTLoss, nst_loss

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal

KERNELS = [
    ('linear', 'image'),
    ('polynomial', 'image'),
    ('gaussian', 'image'),
    ('gaussian', 'batch'),
    ('gaussian', 0.5),
]
FEW_CHANNELS = ((2, 2, 3, 4), (2, 3, 3, 4))
MANY_CHANNELS = ((2, 9, 1, 2), (2, 12, 1, 2))
SAME_SIZE = [((1, 1, 2, 2), (1, 1, 2, 2)), ((1, 3, 1, 1), (1, 2, 1, 1)), FEW_CHANNELS, MANY_CHANNELS]
OTHER_SIZE = [
    ((2, 2, 4, 4), (2, 3, 2, 2)),
    ((2, 3, 2, 3), (2, 2, 5, 4)),  # places of the pooled map overlap
    ((1, 2, 4, 2), (1, 3, 2, 3)),  # higher and narrower
]

kernels = pytest.mark.parametrize(('kernel', 'variance'), KERNELS)


def unit_channels(maps: Tensor) -> Tensor:
    return torch.nn.functional.normalize(maps.flatten(2), dim=2)


@kernels
@pytest.mark.parametrize('shapes', SAME_SIZE + OTHER_SIZE)
def test_value_and_gradient_are_those_of_the_formula(shapes, kernel, variance):
    student, teacher = normal(*shapes)
    constants = (teacher.tolist(), kernel, variance)
    value, gradient = value_and_gradient(nst_loss, student, teacher, kernel, variance)
    assert value.item() == pytest.approx(naive.nst(student.tolist(), *constants).real, rel=1e-9, abs=1e-13)
    expected = naive.gradient(lambda x: naive.nst(x, *constants), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@kernels
@pytest.mark.parametrize('shapes', [FEW_CHANNELS, MANY_CHANNELS])
def test_dead_channels_are_vectors_of_length_zero(shapes, kernel, variance):
    student, teacher = normal(*shapes)
    student[0, 1] = teacher[:, 0] = teacher[1, 2] = 0
    value, gradient = value_and_gradient(nst_loss, student, teacher, kernel, variance)
    constants = (teacher.tolist(), kernel, variance)
    assert value.item() == pytest.approx(naive.nst(student.tolist(), *constants).real, rel=1e-9, abs=1e-13)
    expected = naive.gradient(lambda x: naive.nst(x, *constants), student)
    alive = student != 0
    torch.testing.assert_close(gradient[alive], expected[alive], rtol=1e-9, atol=1e-12)
    assert gradient.isfinite().all()


@pytest.mark.parametrize('shapes', [FEW_CHANNELS, MANY_CHANNELS, ((1, 2, 6, 6), (1, 3, 6, 6))])
def test_forms_of_the_polynomial_kernel_agree(shapes):
    student, teacher = normal(*shapes)
    x, y = unit_channels(teacher), unit_channels(student)

    def broadcast(a: Tensor, b: Tensor) -> Tensor:
        return (a[:, :, None] * b[:, None]).sum(3).square().mean((1, 2))

    def products(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT).square().mean((1, 2))

    grams = [z.mT @ z / z.shape[1] for z in (x, y)]
    expected = (grams[0] - grams[1]).square().sum((1, 2)).mean()
    for form in (broadcast, products):
        torch.testing.assert_close((form(x, x) + form(y, y) - 2 * form(x, y)).mean(), expected)
    torch.testing.assert_close(nst_loss(student, teacher), expected)


@pytest.mark.parametrize('shapes', [((2, 3, 8, 8), (2, 4, 8, 8)), ((2, 64, 2, 2), (2, 80, 2, 2))])
@pytest.mark.parametrize('kernel', ['linear', 'polynomial'])
def test_backward_keeps_nothing_larger_than_the_maps(shapes, kernel):
    """Channel pairs are few beside HW × HW places, or the other way round; pairs × HW are never."""
    student, teacher = normal(*shapes)
    sizes = []

    def seen(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        nst_loss(student.requires_grad_(), teacher, kernel)
    assert max(sizes) <= teacher.numel()


@pytest.mark.parametrize(
    ('kernel', 'variance', 'expected'),
    [
        # one channel each, orthogonal: k = 1 + 1 − 2·0
        ('linear', 'image', 2),
        ('polynomial', 'image', 2),
        # |x − y|² = 2, so 2 − 2 exp(−2 / 2σ²)
        ('gaussian', 2.0, 2 - 2 * exp(-0.5)),
        ('gaussian', 2.0, 0.7869387),
        ('gaussian', 1, 2 - 2 * exp(-1)),
        # the mean of the one squared distance is 2
        ('gaussian', 'image', 0.7869387),
        ('gaussian', 'batch', 0.7869387),
    ],
)
def test_hand_values_of_orthogonal_channels(kernel, variance, expected):
    student, teacher = torch.tensor([[[[0.5, 0.0]]]]).double(), torch.tensor([[[[0.0, 7.0]]]]).double()
    assert nst_loss(student, teacher, kernel, variance).item() == pytest.approx(expected, abs=1e-7)


def test_hand_values_of_two_images():
    # images: orthogonal (|x − y|² = 2), and 60 degrees apart (|x − y|² = 2 − 2·½ = 1)
    student = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]]).double()
    teacher = torch.tensor([[[[0.0, 1.0]]], [[[1.0, 3**0.5]]]], dtype=torch.float64)
    cases: dict[Any, float] = {
        ('linear', 'image'): (2 + 1) / 2,
        ('polynomial', 'image'): (2 + 2 - 2 / 4) / 2,
        ('gaussian', 'image'): 2 - 2 * exp(-0.5),
        ('gaussian', 'batch'): 2 - exp(-2 / 3) - exp(-1 / 3),  # σ² = 3/2
        ('gaussian', 0.5): 2 - exp(-2) - exp(-1),
    }
    for (kernel, variance), expected in cases.items():
        assert nst_loss(student, teacher, kernel, variance).item() == pytest.approx(expected, abs=1e-12)


@kernels
@pytest.mark.parametrize('shape', [(3, 4, 3, 3), (3, 12, 1, 2)])
def test_zero_and_flat_for_the_same_channels_in_any_order_and_scale(shape, kernel, variance):
    (student,) = normal(shape)
    scale = torch.rand(3, shape[1], 1, 1, dtype=torch.float64) + 0.1
    for teacher in (student, (student * scale).flip(1), (student * scale).repeat(1, 2, 1, 1)):
        value, gradient = value_and_gradient(nst_loss, student, teacher, kernel, variance)
        assert value.abs() <= 1e-14
        assert gradient.abs().max() <= 1e-14


@kernels
@pytest.mark.parametrize('shapes', [FEW_CHANNELS, MANY_CHANNELS])
def test_order_and_scale_of_channels_are_free(shapes, kernel, variance):
    student, teacher = normal(*shapes)
    value = nst_loss(student, teacher, kernel, variance)
    scales = [
        10 ** torch.linspace(-3, 3, maps.shape[1], dtype=torch.float64)[:, None, None] for maps in normal(*shapes)
    ]
    changed = nst_loss((student * scales[0]).flip(1), (teacher * scales[1]).roll(1, 1), kernel, variance)
    torch.testing.assert_close(changed, value)
    torch.testing.assert_close(nst_loss(student.flip(0), teacher.flip(0), kernel, variance), value)
    torch.testing.assert_close(nst_loss(student.flip(2), teacher.flip(2), kernel, variance), value)


@pytest.mark.parametrize('shapes', [FEW_CHANNELS, MANY_CHANNELS])
def test_sign_of_a_channel_is_free_for_the_polynomial_kernel_only(shapes):
    student, teacher = normal(*shapes)
    flipped = student * torch.tensor([-1.0] + [1.0] * (shapes[0][1] - 1))[:, None, None]
    torch.testing.assert_close(nst_loss(flipped, teacher), nst_loss(student, teacher))
    for kernel in ('linear', 'gaussian'):
        assert (nst_loss(flipped, teacher, kernel) - nst_loss(student, teacher, kernel)).abs() > 1e-3


@kernels
@pytest.mark.parametrize('shapes', [FEW_CHANNELS, MANY_CHANNELS, OTHER_SIZE[1]])
def test_student_and_teacher_count_alike(shapes, kernel, variance):
    student, teacher = normal(*shapes)
    torch.testing.assert_close(
        nst_loss(teacher, student, kernel, variance), nst_loss(student, teacher, kernel, variance)
    )


def test_variance_counts_for_the_gaussian_kernel_only():
    student, teacher = normal((3, 2, 3, 3), (3, 3, 3, 3))
    for kernel in ('linear', 'polynomial'):
        assert nst_loss(student, teacher, kernel, 'batch') == nst_loss(student, teacher, kernel, 'image')
    assert len({nst_loss(student, teacher, 'gaussian', v).item() for v in ('image', 'batch', 0.5, 2)}) == 4


def test_defaults():
    student, teacher = normal(*FEW_CHANNELS)
    expected = nst_loss(student, teacher, kernel='polynomial', variance='image')
    assert nst_loss(student, teacher) == expected
    torch.testing.assert_close(NSTLoss()(student, teacher), 50 * expected)
    gaussian = nst_loss(student, teacher, kernel='gaussian')
    assert gaussian == nst_loss(student, teacher, kernel='gaussian', variance='image')


@pytest.mark.parametrize('variance', ['image', 'batch'])
@pytest.mark.parametrize('n', [1, 3])
def test_variance_of_equal_single_channels_is_no_trouble(n, variance):
    student = normal((n, 1, 2, 2))[0].float()
    value, gradient = value_and_gradient(nst_loss, student, student, 'gaussian', variance)
    assert value == 0
    assert gradient.isfinite().all()
    # rounding may make a variance, and nothing more than 2 − 2 exp(−1/2) of it
    value, gradient = value_and_gradient(nst_loss, student, 3 * student, 'gaussian', variance)
    assert 0 <= value < 0.79
    assert gradient.isfinite().all()


@pytest.mark.parametrize('shapes', [((4, 64, 8, 8), (4, 128, 8, 8)), ((4, 96, 3, 3), (4, 160, 3, 3))])
@kernels
def test_float32_is_accurate(shapes, kernel, variance):
    student, teacher = (maps.relu() for maps in normal(*shapes))
    expected = nst_loss(student, teacher, kernel, variance)
    torch.testing.assert_close(
        nst_loss(student.float(), teacher.float(), kernel, variance).double(), expected, rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize('variance', ['median', 0, -1.0, float('nan'), float('inf'), None])
def test_what_is_unknown_is_refused_with_what_is_known(variance):
    student, teacher = normal(*FEW_CHANNELS)
    for call in (lambda: NSTLoss('gaussian', variance), lambda: nst_loss(student, teacher, 'gaussian', variance)):
        with pytest.raises(ValueError, match=r"expected a finite number > 0, 'image' or 'batch'") as error:
            call()
        assert f'variance={variance!r}' in str(error.value)
    for call in (lambda: NSTLoss('poly'), lambda: nst_loss(student, teacher, 'poly')):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="kernel='poly' given, expected 'linear', 'polynomial' or 'gaussian'"):
            call()
