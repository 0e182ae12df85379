"""RKD: both terms against their formulas, hand values, what they do not see, and many samples in little memory."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from mmkd_plugin.losses import RKDLoss, rkd_angle_loss, rkd_distance_loss, rkd_loss
from mmkd_plugin.losses.relations import rkd as module
from mmkd_plugin.losses.relations.distances import squared_distances
from mmkd_plugin.losses.relations.rkd import relative_distances

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal
from . import naive_pairs

TERMS = {'distance': (1.0, 0.0), 'angle': (0.0, 1.0), 'both': (25.0, 50.0)}

terms = pytest.mark.parametrize('weights', TERMS.values(), ids=TERMS)
both_lengths = pytest.mark.parametrize('normalize', [False, True])


def moved(vectors: Tensor, seed: int = 1) -> Tensor:
    """Rotated, scaled and moved."""
    generator = torch.Generator().manual_seed(seed)
    size = vectors.size(1)
    rotation, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=vectors.dtype))
    return 3.7 * vectors @ rotation + torch.randn(size, generator=generator, dtype=vectors.dtype)


@terms
@both_lengths
@pytest.mark.parametrize('shapes', [((2, 3), (2, 3)), ((4, 3), (4, 5)), ((5, 1), (5, 2)), ((6, 7), (6, 2))])
def test_value_and_gradient_are_those_of_the_formula(shapes, weights, normalize):
    student, teacher = normal(*shapes)
    student[0] *= 5  # distances that differ by more than 1
    value, gradient = value_and_gradient(rkd_loss, student, teacher, *weights, normalize)
    constants = (teacher.tolist(), *weights, normalize)
    assert value.item() == pytest.approx(naive_pairs.rkd(student.tolist(), *constants).real, rel=1e-9, abs=1e-13)
    expected = naive.gradient(lambda x: naive_pairs.rkd(x, *constants), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-11)


@terms
@both_lengths
def test_equal_samples_have_no_distance_and_no_angle(weights, normalize):
    """In both networks, in one of them, and vectors of nothing."""
    student, teacher = normal((5, 3), (5, 4))
    student[1] = student[0]
    teacher[1] = teacher[0]
    teacher[3] = teacher[2]
    student[4] = 0
    value, gradient = value_and_gradient(rkd_loss, student, teacher, *weights, normalize)
    constants = (teacher.tolist(), *weights, normalize)
    assert value.item() == pytest.approx(naive_pairs.rkd(student.tolist(), *constants).real, rel=1e-9)
    assert gradient.isfinite().all()
    expected = naive.gradient(lambda x: naive_pairs.rkd(x, *constants), student)
    torch.testing.assert_close(gradient[2:4], expected[2:4], rtol=1e-8, atol=1e-11)  # the others lie on a kink


def test_maps_are_averaged_over_their_positions():
    student, teacher = normal((4, 3, 2, 5), (4, 6, 3, 1))
    torch.testing.assert_close(rkd_loss(student, teacher), rkd_loss(student.mean((2, 3)), teacher.mean((2, 3))))


def test_hand_values_of_three_on_a_line():
    # 0, 1, 2 against 0, 1, −1: d / mu = 3/4, 3/4, 3/2 and 3/4, 3/2, 3/4
    student, teacher = torch.tensor([[0.0], [1], [2]]).double(), torch.tensor([[0.0], [1], [-1]]).double()
    assert rkd_distance_loss(student, teacher).item() == pytest.approx(4 / 9 * (3 / 4) ** 2 / 2)
    # sample 0 is between the others in one network, sample 1 in the other: cosines −1 and 1, twice each
    assert rkd_angle_loss(student, teacher).item() == pytest.approx(4 / 27 * (2 - 1 / 2))


def test_hand_values_of_a_right_against_an_equilateral_triangle():
    right = torch.tensor([[0.0, 0], [1, 0], [0, 1]]).double()
    equilateral = torch.tensor([[0.0, 0], [1, 0], [1 / 2, 3**0.5 / 2]]).double()
    # d / mu of the equilateral one are 1; cosines 0, √½, √½ against ½
    mu = (2 + 2**0.5) / 3
    distance = (4 * (1 / mu - 1) ** 2 + 2 * (2**0.5 / mu - 1) ** 2) / 2 / 9
    assert rkd_distance_loss(right, equilateral).item() == pytest.approx(distance)
    angle = (2 * (1 / 2) ** 2 + 4 * (0.5**0.5 - 1 / 2) ** 2) / 2 / 27
    assert rkd_angle_loss(right, equilateral).item() == pytest.approx(angle)
    both = rkd_loss(right, equilateral).item()
    assert both == pytest.approx(25 * distance + 50 * angle)
    assert RKDLoss(loss_weight=0.1)(right, equilateral).item() == pytest.approx(both / 10)


def test_relative_distances_have_mean_one_where_positive():
    (vectors,) = normal((6, 4))
    vectors[2] = vectors[5]
    psi = relative_distances(squared_distances(vectors))
    assert psi.diagonal().tolist() == [0] * 6
    assert psi[2, 5] == 0
    assert (psi > 0).sum() == 28
    assert psi[psi > 0].mean().item() == pytest.approx(1)


@terms
def test_place_scale_and_rotation_are_free(weights):
    student, teacher = normal((6, 4), (6, 5))
    value = rkd_loss(student, teacher, *weights)
    torch.testing.assert_close(rkd_loss(moved(student), teacher, *weights), value)
    torch.testing.assert_close(rkd_loss(student, moved(teacher), *weights), value)
    # zero for such a transform of the teacher, also one in more dimensions
    embedded = torch.cat([teacher, torch.zeros_like(teacher)], 1)
    for same in (moved(teacher), moved(embedded), -teacher):
        value, gradient = value_and_gradient(rkd_loss, same, teacher, *weights)
        assert value.abs() <= 1e-12
        assert gradient.abs().max() <= 1e-12


@both_lengths
def test_length_is_free_for_unit_vectors_only(normalize):
    student, teacher = normal((5, 4), (5, 4))
    longer = student * torch.tensor([[1.0], [2], [3], [4], [5]])
    difference = rkd_loss(longer, teacher, normalize=normalize) - rkd_loss(student, teacher, normalize=normalize)
    assert (abs(difference) < 1e-12) == normalize


@pytest.mark.parametrize('offset', [0.0, 100.0])
def test_float32_is_good_far_from_the_origin(offset):
    student, teacher = normal((32, 64), (32, 48))
    exact, exact_gradient = value_and_gradient(rkd_loss, student, teacher)
    value, gradient = value_and_gradient(rkd_loss, (student + offset).float(), (teacher + offset).float())
    assert value.item() == pytest.approx(exact.item(), rel=1e-4)
    torch.testing.assert_close(
        gradient.double(), exact_gradient, rtol=0.0, atol=1e-3 * float(exact_gradient.abs().max())
    )


@pytest.mark.parametrize('at_once', [1, 7**2, 3 * 7**2, 7**3 - 1])
def test_parts_of_the_angles_make_the_whole(monkeypatch, at_once):
    student, teacher = normal((7, 3), (7, 4))
    value, gradient = value_and_gradient(rkd_angle_loss, student, teacher)
    monkeypatch.setattr(module, '_ANGLES', at_once)
    parts, of_parts = value_and_gradient(rkd_angle_loss, student, teacher)
    torch.testing.assert_close(parts, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_parts, gradient, rtol=1e-11, atol=1e-14)


def test_backward_keeps_pairs_and_no_triplets():
    student, teacher = normal((40, 8), (40, 8))
    sizes = []

    def seen(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        rkd_loss(student.requires_grad_(), teacher)
    assert max(sizes) <= 40**2


@terms
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_all_equal_samples_have_no_relations(weights, dtype):
    teacher = normal((4, 3))[0].to(dtype)
    for student in (torch.full((4, 3), 0.1, dtype=dtype), torch.zeros(4, 3, dtype=dtype)):
        value, gradient = value_and_gradient(rkd_loss, student, teacher, *weights)
        expected = naive_pairs.rkd(student.tolist(), teacher.tolist(), *weights)
        assert value.item() == pytest.approx(expected.real, rel=1e-5)
        assert (gradient == 0).all()
        value, gradient = value_and_gradient(rkd_loss, teacher, student, *weights)
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert rkd_loss(student, student + 1, *weights) == 0


@terms
@pytest.mark.parametrize('n', [0, 1, 2])
def test_one_or_two_samples_have_nothing_to_compare(weights, n):
    student, teacher = normal((n, 3), (n, 4))
    value, gradient = value_and_gradient(rkd_loss, student, teacher, *weights)
    assert value.abs() <= 1e-14  # two: one distance, which is the mean; angles of a sample with itself
    assert (gradient.abs() <= 1e-14).all()


def test_not_a_number_stays_one():
    student, teacher = normal((4, 3), (4, 3))
    broken = student.clone()
    broken[1, 2] = float('nan')
    for weights in TERMS.values():
        assert rkd_loss(broken, teacher, *weights).isnan()
        assert rkd_loss(student, broken, *weights).isnan()


def test_order_of_samples_is_free():
    student, teacher = normal((4, 3), (4, 2))
    value = rkd_loss(student, teacher)
    for order in permutations(range(4)):
        torch.testing.assert_close(rkd_loss(student[list(order)], teacher[list(order)]), value)


def test_what_is_weighted_zero_is_not_computed(monkeypatch):
    student, teacher = normal((3, 2), (3, 2))
    expected = RKDLoss(angle_weight=0)(student, teacher)
    monkeypatch.setattr(module, '_MeanOfAngles', None)
    assert RKDLoss(angle_weight=0)(student, teacher) == expected == 25 * rkd_distance_loss(student, teacher)
    monkeypatch.setattr(module, 'relative_distances', None)
    with pytest.raises(ValueError, match='expected one of them above 0'):
        RKDLoss(distance_weight=0, angle_weight=0)


@pytest.mark.parametrize('shapes', [((4,), (4,)), ((4, 3, 2), (4, 3)), ((4, 3), (3, 3)), ((4, 3), (1, 3))])
def test_what_is_no_vectors_of_the_same_samples_is_refused(shapes):
    with pytest.raises(ValueError, match='expected vectors') as error:
        RKDLoss()(*normal(*shapes))
    assert all(str(shape) in str(error.value) for shape in shapes)
