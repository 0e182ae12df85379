"""KD-SVD: the formula by torch's own SVD, hand values, invariances, and gradients where the SVD has none."""

from math import exp

import pytest
import torch

from mmkd_plugin.losses import KDSVDLoss, kdsvd_loss, singular_vectors
from mmkd_plugin.losses.relations.kdsvd import kernel_features

from ..naive_features import normal
from . import naive_layers as naive
from .test_fsp import refuses

SHAPES = [
    ((2, 3, 4, 4), (2, 5, 3, 3)),  # more places than channels
    ((2, 9, 2, 2), (2, 6, 1, 3)),  # more channels than places
    ((2, 6, 3, 3), (2, 4, 4, 4), (2, 12, 2, 3)),
]
OTHER_SIZES = {(4, 4): (3, 5), (3, 3): (2, 4), (2, 2): (3, 2), (1, 3): (2, 2), (2, 3): (2, 2)}


def maps(shapes, seed=0, other=False):
    return normal(*((n, c, *(OTHER_SIZES[h, w] if other else (h, w))) for n, c, h, w in shapes), seed=seed)


@pytest.mark.parametrize('vectors', [1, 2, 3])
@pytest.mark.parametrize('other', [False, True])
@pytest.mark.parametrize('shapes', SHAPES)
def test_value_and_gradient_are_those_of_the_formula_by_torchs_svd(shapes, other, vectors):
    student, teacher = maps(shapes), maps(shapes, seed=1, other=other)
    for layer in student:
        layer.requires_grad_()
    values = [function(student, teacher, vectors) for function in (kdsvd_loss, naive.kdsvd)]
    torch.testing.assert_close(*values, rtol=1e-9, atol=0)
    gradients = (torch.autograd.grad(value, student) for value in values)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)  # the broadening of differences


def test_hand_values():
    # V of a map of one place is its direction
    def at(*entries):
        return torch.tensor(entries, dtype=torch.float64).view(1, -1, 1, 1)

    same, other = at(3.0, 0.0), at(0.0, 5.0)
    # R_s is [[1, e], [e, 1]] with e = exp(−1/8), R_t the other way round
    assert kdsvd_loss([same, same], [same, other]).item() == pytest.approx(4 * (1 - exp(-1 / 8)) ** 2, abs=1e-12)
    # V_s = (0.6, 0.8), V_t = (1, 0), against one channel, V = 1: R_s = exp(−(V − 1)²/8)
    value = kdsvd_loss([at(2.0), at(3.0, 4.0)], [at(1.0), at(7.0, 0.0)]).item()
    assert value == pytest.approx((exp(-0.02) - 1) ** 2 + (exp(-0.005) - exp(-1 / 8)) ** 2, abs=1e-12)
    # both vectors of a diagonal map; its values are 3 and 4, the larger first, so they weigh 0.8 and 0.6
    vectors, values = singular_vectors(torch.diag(torch.tensor([3.0, 4.0])).view(1, 2, 2, 1), 3)
    torch.testing.assert_close(vectors[0].abs(), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    torch.testing.assert_close(values[0], torch.tensor([0.8, 0.6, 0.0]))


def test_the_kernels_series_is_the_kernel():
    a, b = torch.linspace(-1, 1, 41, dtype=torch.float64), torch.linspace(-1, 1, 37, dtype=torch.float64)
    kernel = kernel_features(a) @ kernel_features(b).mT
    torch.testing.assert_close(kernel, (-((a[:, None] - b) ** 2) / 8).exp(), rtol=1e-14, atol=0)
    assert kernel[-1, 0].item() == pytest.approx(exp(-0.5))  # at a difference of 2


@pytest.mark.parametrize('shapes', SHAPES)
def test_zero_and_flat_at_equality_whatever_the_scale_and_order_of_places(shapes):
    teacher = maps(shapes)
    student = [(7.0 * x).flip(2).flip(3).requires_grad_() for x in teacher]
    value = kdsvd_loss(student, teacher)
    assert value.abs() < 1e-20
    assert all(slope.abs().max() < 1e-10 for slope in torch.autograd.grad(value, student))


def test_signs_of_vectors_change_nothing(monkeypatch):
    """Neither those that the solver gives, nor that of a map."""
    student, teacher = maps(SHAPES[2]), maps(SHAPES[2], seed=1)
    value = kdsvd_loss(student, teacher, 2)
    torch.testing.assert_close(kdsvd_loss([student[0], -student[1], student[2]], [*teacher[:2], -teacher[2]], 2), value)
    solve = torch.linalg.eigh

    def flipped(matrices):
        values, vectors = solve(matrices)
        return values, vectors * (-1) ** torch.arange(vectors.size(2))

    monkeypatch.setattr(torch.linalg, 'eigh', flipped)
    torch.testing.assert_close(kdsvd_loss(student, teacher, 2), value)


def test_the_student_may_have_the_teachers_vector_as_its_fourth():
    values = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5])
    student = torch.diag(values).view(1, 5, 5, 1).double()
    teacher = torch.diag(values.flip(0)).view(1, 5, 5, 1).double()
    # of k + 3 = 4 vectors none is the teacher's first, the fifth; of the second's four, the fourth is
    nearest = torch.diag(torch.tensor([4.0, 3.0, 2.0, 5.0, 0.5])).view(1, 5, 5, 1).double()
    first = [torch.ones(1, 1, 1, 1).double()]
    assert kdsvd_loss([*first, student], [*first, nearest]) < 1e-20
    assert kdsvd_loss([*first, student], [*first, teacher]) > 0.01


DEGENERATE = {
    'equal values': torch.eye(4).view(1, 4, 4, 1),
    'two equal values': torch.diag(torch.tensor([2.0, 2.0, 1.0, 0.5])).view(1, 4, 4, 1),
    'dead': torch.zeros(1, 4, 4, 1),
    'almost dead': torch.full((1, 4, 4, 1), 1e-30),
    'one dead channel': torch.eye(4).view(1, 4, 4, 1) * torch.tensor([1.0, 0.0, 1.0, 1.0]).view(1, 4, 1, 1),
    'constant': torch.ones(1, 4, 4, 1),
    'rank 2': (torch.arange(16.0) % 2).view(1, 4, 4, 1) + torch.eye(4)[0].view(1, 1, 4, 1),
    'one place': torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1),
    'few places': torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 0.0, 1.0]]).mT.reshape(1, 4, 2, 1),
}


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('vectors', [1, 2, 4])
@pytest.mark.parametrize('name', DEGENERATE)
def test_gradients_are_finite_where_the_svd_has_none(name, vectors, dtype):
    student = [DEGENERATE[name].to(dtype).clone().requires_grad_() for _ in range(2)]
    teacher = [x.to(dtype) for x in normal((1, 4, 3, 3), (1, 4, 2, 2))]
    value = kdsvd_loss(student, teacher, vectors)
    assert value.isfinite()
    assert all(slope.isfinite().all() and slope.abs().max() < 1e4 for slope in torch.autograd.grad(value, student))
    swapped = kdsvd_loss([x.requires_grad_() for x in teacher], [x.detach() for x in student], vectors)
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(swapped, teacher))


def test_a_map_that_is_not_finite_gives_a_loss_that_is_not():
    """And not an error of the solver, so that whoever watches the losses says which it is."""
    student, teacher = maps(SHAPES[0]), maps(SHAPES[0], seed=1)
    student[1][0, 0, 0, 0] = float('inf')
    assert not kdsvd_loss(student, teacher).isfinite()
    assert kdsvd_loss([x[1:] for x in student], [x[1:] for x in teacher]).isfinite()


def test_nothing_as_large_as_pairs_of_channels_is_made():
    student, teacher = normal((4, 64, 3, 3), (4, 96, 2, 2)), normal((4, 64, 3, 3), (4, 96, 2, 2), seed=1)
    sizes: list[int] = []

    def seen(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda x: x):
        kdsvd_loss([x.requires_grad_() for x in student], teacher)
    assert max(sizes) <= 12 * 4 * 96


def test_float32_is_accurate():
    student, teacher = ([x.relu() for x in normal((4, 16, 8, 8), (4, 32, 4, 4), seed=seed)] for seed in (0, 1))
    value = kdsvd_loss([x.float() for x in student], [x.float() for x in teacher])
    torch.testing.assert_close(value.double(), kdsvd_loss(student, teacher), rtol=1e-3, atol=0)


def test_layers_that_do_not_correspond_are_refused():
    refuses(KDSVDLoss)


def test_defaults_and_arguments():
    student, teacher = maps(SHAPES[0]), maps(SHAPES[0], seed=1)
    assert KDSVDLoss()(student, teacher) == kdsvd_loss(student, teacher, 1)
    for vectors in (0, 1.5, None, True):
        for call in (lambda v=vectors: KDSVDLoss(v), lambda v=vectors: kdsvd_loss(student, teacher, v)):
            with pytest.raises(ValueError, match=f'vectors={vectors!r} given, expected a whole number >= 1'):
                call()
