from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkd_plugin.losses import ATLoss, at_loss

from . import naive_features as naive
from .naive_features import normal

SHAPES = [
    ((1, 1, 2, 2), (1, 1, 2, 2)),
    ((2, 3, 3, 4), (2, 2, 3, 4)),
    ((3, 4, 1, 3), (3, 4, 1, 3)),
    ((2, 2, 4, 4), (2, 3, 2, 2)),
    ((2, 3, 2, 3), (2, 2, 5, 4)),  # places of the pooled map overlap
    ((1, 2, 4, 2), (1, 3, 2, 3)),  # higher and narrower
]
PAIR = SHAPES[1]
POWERS = [1, 1.5, 2, 3, 4.0]
LOW_PRECISION = [torch.bfloat16, torch.float16]

both_forms = pytest.mark.parametrize('squared', [True, False])
powers = pytest.mark.parametrize('p', POWERS)


def value_and_gradient(student: Tensor, teacher: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    student = student.detach().clone().requires_grad_()
    value = at_loss(student, teacher, *args)
    return value.detach(), torch.autograd.grad(value, student)[0]


@both_forms
@powers
@pytest.mark.parametrize('shapes', SHAPES)
def test_value_and_gradient_are_those_of_the_formula(shapes, p, squared):
    student, teacher = normal(*shapes)
    value, gradient = value_and_gradient(student, teacher, p, squared)
    constants = (teacher.tolist(), p, squared)
    assert value.item() == pytest.approx(naive.at(student.tolist(), *constants).real, rel=1e-9)
    expected = naive.gradient(lambda x: naive.at(x, *constants), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ('p', 'squared', 'expected'),
    [
        # Q_s = [3, 4], q_s = [0.6, 0.8]; Q_t = [1, 0]: squares 0.16 and 0.64
        (1, True, (0.16 + 0.64) / 2),
        (1, False, sqrt(0.8) / 2),
        # Q_s = [5, 8], two channels' squares; |q_s − q_t|² = 2 − 2 · 5 / √89
        (2, True, 1 - 5 / sqrt(89)),
        (2, False, sqrt(2 - 10 / sqrt(89)) / 2),
        # Q_s = [9, 16]
        (3, True, 1 - 9 / sqrt(337)),
    ],
)
def test_hand_values(p, squared, expected):
    # places [1, 2, ...]: channels [−2, 2] and [1, −2] have |F| summing to [3, 4], F² to [5, 8], |F|³ to [9, 16]
    student = torch.tensor([[[[-2.0, 2.0]], [[1.0, -2.0]]]]).double()
    teacher = torch.tensor([[[[-0.1, 0.0]]]]).double()
    assert at_loss(student, teacher, p, squared).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('size', [(1, 2), (2, 2), (3, 4)])
def test_hand_values_of_disjoint_supports(size):
    student, teacher = torch.zeros(3, 2, *size).double(), torch.zeros(3, 1, *size).double()
    student[:, :, 0, 0], teacher[:, :, 0, 1] = 0.7, -20.0
    for p in POWERS:
        assert at_loss(student, teacher, p).item() == pytest.approx(2 / (size[0] * size[1]), rel=1e-12)
        assert at_loss(student, teacher, p, squared=False).item() == pytest.approx(sqrt(2) / 2, rel=1e-12)


def test_one_form_from_the_other():
    student, teacher = normal((1, 3, 3, 4), (1, 2, 3, 4))
    norm = 2 * at_loss(student, teacher, squared=False)
    torch.testing.assert_close(at_loss(student, teacher), norm.square() / 12)


@both_forms
@powers
def test_range(p, squared):
    """‖q_s − q_t‖² lies in [0, 2]."""
    for seed in range(5):
        student, teacher = normal((1, 2, 2, 3), (1, 2, 2, 3), seed=seed)
        value = at_loss(student, teacher, p, squared).item()
        assert 0 < value <= (2 / 6 if squared else sqrt(2) / 2)


@both_forms
@pytest.mark.parametrize('p', [1, 2, 3])
@pytest.mark.parametrize('shapes', [SHAPES[1], SHAPES[4]])
def test_gradcheck(shapes, p, squared):
    student, teacher = normal(*shapes)
    assert torch.autograd.gradcheck(lambda s: at_loss(s, teacher, p, squared), student.requires_grad_())


@both_forms
@powers
def test_scale_sign_and_order_of_channels_are_free(p, squared):
    student, teacher = normal(*PAIR)
    value = at_loss(student, teacher, p, squared)
    signs = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    per_image = torch.tensor([0.01, 300.0]).double()[:, None, None, None]
    for same in (
        student * 7,
        student * per_image,
        -student,
        student * signs,
        student.flip(1),
        student.repeat(1, 2, 1, 1),
    ):
        torch.testing.assert_close(at_loss(same, teacher, p, squared), value)
    torch.testing.assert_close(at_loss(student, -0.2 * teacher.flip(1), p, squared), value)
    # the scale of one channel is its share of the attention
    assert (at_loss(student * torch.tensor([1.0, 9, 1])[:, None, None], teacher, p, squared) - value).abs() > 1e-4


@both_forms
def test_order_of_places_and_of_samples_is_free(squared):
    student, teacher = normal(*PAIR)
    value = at_loss(student, teacher, 2, squared)
    for dimensions in ((0,), (2,), (3,)):
        torch.testing.assert_close(at_loss(student.flip(dimensions), teacher.flip(dimensions), 2, squared), value)
    assert (at_loss(student.flip(3), teacher, 2, squared) - value).abs() > 1e-3


@both_forms
def test_mean_over_the_batch(squared):
    student, teacher = normal((4, 2, 3, 3), (4, 3, 3, 3))
    parts = [at_loss(student[i : i + 1], teacher[i : i + 1], 2, squared) for i in range(4)]
    torch.testing.assert_close(at_loss(student, teacher, 2, squared), torch.stack(parts).mean())


def test_maps_are_pooled_before_attention():
    student, teacher = torch.tensor([[[[1.0, -1.0, 2.0, 2.0]]]]), torch.tensor([[[[0.0, 3.0]]]])
    # pooled: [0, 2], the teacher's attention; attention pooled would be [1, 4]
    assert at_loss(student, teacher) == 0


@both_forms
@powers
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_zero_and_flat_at_equality(dtype, p, squared):
    teacher = normal(PAIR[0])[0].to(dtype)
    for student, tolerance in ((teacher, 0), (-4 * teacher.flip(1), 1e-6)):
        value, gradient = value_and_gradient(student, teacher, p, squared)
        assert value.abs() <= tolerance
        assert gradient.isfinite().all()
        if tolerance == 0:
            assert (gradient == 0).all()


def test_one_image_at_equality_leaves_the_others_their_gradient():
    student, teacher = normal((2, 3, 3, 4), (2, 3, 3, 4))
    student[0] = teacher[0]
    value, gradient = value_and_gradient(student, teacher, 2, False)
    assert (gradient[0] == 0).all()
    alone, expected = value_and_gradient(student[1:], teacher[1:], 2, False)
    torch.testing.assert_close(value, alone / 2)
    torch.testing.assert_close(gradient[1:], expected / 2)


def test_defaults():
    student, teacher = normal(*PAIR)
    expected = at_loss(student, teacher, p=2, squared=True)
    assert at_loss(student, teacher) == expected
    torch.testing.assert_close(ATLoss()(student, teacher), 1000 * expected)


@both_forms
@powers
def test_class_weighs_the_function(p, squared):
    student, teacher = normal(*PAIR)
    value = at_loss(student, teacher, p, squared)
    for weight in (0.0, 0.9, 30.0):
        torch.testing.assert_close(ATLoss(p=p, squared=squared, loss_weight=weight)(student, teacher), weight * value)


@both_forms
def test_teacher_gets_no_gradient(squared):
    student, teacher = normal(*PAIR)
    student.requires_grad_(), teacher.requires_grad_()
    at_loss(student, teacher, 2, squared).backward()
    assert student.grad is not None
    assert teacher.grad is None


@both_forms
@powers
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
@pytest.mark.parametrize('dead', ['places', 'channel', 'student', 'teacher', 'both'])
def test_dead_channels_and_maps_stay_finite(dead, dtype, p, squared):
    student, teacher = (maps.to(dtype) for maps in normal(*PAIR))
    if dead == 'places':
        student, teacher = student.relu(), teacher.relu()
    if dead == 'channel':
        student[:, 0] = teacher[0, 0] = 0
    if dead in ('student', 'both'):
        student[1] = 0
    if dead in ('teacher', 'both'):
        teacher[1] = 0
    value, gradient = value_and_gradient(student, teacher, p, squared)
    assert value.isfinite()
    assert gradient.isfinite().all()
    expected = naive.at(student.tolist(), teacher.tolist(), p, squared).real
    assert value.item() == pytest.approx(expected, rel=1e-4)


@both_forms
@pytest.mark.parametrize('shapes', [((0, 3, 3, 4), (0, 2, 3, 4)), ((0, 2, 4, 4), (0, 3, 2, 2))])
def test_empty_batch_gives_zero_with_a_gradient(shapes, squared):
    value, gradient = value_and_gradient(*normal(*shapes), 2, squared)
    assert value == 0
    assert gradient.shape == shapes[0]


@both_forms
@pytest.mark.parametrize('p', [1, 2, 3])
@pytest.mark.parametrize('dtype', LOW_PRECISION)
def test_autocast_computes_in_float32(dtype, p, squared):
    student, teacher = (3e3 * maps.float() for maps in normal(*PAIR))
    expected = value_and_gradient(student, teacher, p, squared)
    with torch.autocast('cpu', dtype=dtype):
        result = value_and_gradient(student, teacher, p, squared)
    assert result[0].dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@both_forms
@pytest.mark.parametrize('shapes', [SHAPES[1], SHAPES[4]])
@pytest.mark.parametrize('dtype', LOW_PRECISION)
def test_half_precision_maps_are_raised(dtype, shapes, squared):
    student, teacher = ((3e3 * maps).to(dtype) for maps in normal(*shapes))  # squares are more than float16 holds
    value, gradient = value_and_gradient(student, teacher, 2, squared)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    expected, slope = value_and_gradient(student.float(), teacher.float(), 2, squared)
    assert value == expected
    assert value == pytest.approx(naive.at(student.tolist(), teacher.tolist(), 2, squared).real, rel=1e-4)
    torch.testing.assert_close(gradient, slope.to(dtype))
    assert value_and_gradient(student, teacher.float(), 2, squared)[0] == expected


@pytest.mark.parametrize(
    ('student', 'teacher'),
    [
        ((4, 3), (4, 3)),
        ((4, 3, 2), (4, 3, 2)),
        ((3, 2, 2), (3, 2, 2)),
        ((4, 3, 2, 2), (4, 12)),
        ((4, 3, 2, 2), (2, 3, 2, 2)),
        ((4, 3, 2, 2), (1, 3, 2, 2)),
        ((4, 3, 2, 2, 2), (4, 3, 2, 2, 2)),
    ],
)
def test_maps_of_other_shapes_are_refused(student, teacher):
    with pytest.raises(ValueError, match='expected') as error:
        at_loss(torch.zeros(student), torch.zeros(teacher))
    assert str(student) in str(error.value)
    assert str(teacher) in str(error.value)


@pytest.mark.parametrize('p', [0, -1.0, float('nan'), float('inf')])
def test_wrong_power_is_refused(p):
    student, teacher = normal(*PAIR)
    for call in (lambda: ATLoss(p=p), lambda: at_loss(student, teacher, p)):
        with pytest.raises(ValueError, match=f'p={p!r}'):
            call()


@pytest.mark.parametrize('weight', [-1, float('nan'), float('inf')])
def test_wrong_weight_is_refused(weight):
    with pytest.raises(ValueError, match=f'ATLoss: loss_weight={weight}'):
        ATLoss(loss_weight=weight)
