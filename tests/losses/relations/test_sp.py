"""SP: the formula, hand values, and what it does not see of the features."""

from math import sqrt

import pytest
import torch

from mmkd_plugin.losses import SPLoss, sp_loss

from ..conftest import value_and_gradient
from ..naive_features import gradient, normal
from . import naive_samples as naive


@pytest.mark.parametrize('shapes', [((2, 3), (2, 5)), ((5, 4), (5, 4)), ((7, 2), (7, 9)), ((1, 3), (1, 2))])
def test_value_and_gradient_are_those_of_the_formula(shapes):
    student, teacher = normal(*shapes)
    value, slope = value_and_gradient(sp_loss, student, teacher)
    assert value.item() == pytest.approx(naive.sp(student.tolist(), teacher.tolist()).real, rel=1e-9, abs=1e-14)
    expected = gradient(lambda x: naive.sp(x, teacher.tolist()), student)
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-13)


def test_maps_are_flattened_and_may_meet_anything():
    student, teacher, vectors, tokens = normal((4, 2, 2, 3), (4, 3, 3, 3), (4, 6), (4, 5, 2))
    value, slope = value_and_gradient(sp_loss, student, teacher)
    constants = naive.flattened(teacher.tolist())
    assert value.item() == pytest.approx(naive.sp(naive.flattened(student.tolist()), constants).real, rel=1e-9)
    expected = gradient(lambda x: naive.sp(naive.flattened(x), constants), student)
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-13)
    for other in (vectors, tokens):
        torch.testing.assert_close(sp_loss(student, other), sp_loss(student.flatten(1), other.flatten(1)))


def test_hand_values():
    same, right_angle = torch.ones(2, 3, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    # rows (1, 0) and (0, 1) against (1, 1) / sqrt 2
    value = sp_loss(same, right_angle).item()
    assert value == pytest.approx(2 * (2 - sqrt(2)) / 4)
    assert value == pytest.approx(0.2928932, abs=1e-7)
    # opposite samples: rows (1, -1) / sqrt 2 and (-1, 1) / sqrt 2
    opposite = torch.tensor([[2.0], [-2.0]], dtype=torch.float64)
    assert sp_loss(same, opposite).item() == pytest.approx(2 * 2 / 4)
    # lengths 1 and 2 at right angles: as lengths 1 and 1; at 60 degrees G = (1, 1; 1, 4), which is not symmetric then
    assert sp_loss(same, torch.diag(torch.tensor([1.0, 2.0])).double()).item() == pytest.approx(value)
    skew = torch.tensor([[1.0, 0.0], [1.0, sqrt(3)]], dtype=torch.float64)
    assert sp_loss(right_angle, skew).item() == pytest.approx((2 - sqrt(2) + 2 - 2 * 4 / sqrt(17)) / 4)
    assert SPLoss()(same, right_angle).item() == pytest.approx(3000 * value)


def test_common_scale_and_rotation_are_free_and_a_samples_own_scale_is_not():
    student, teacher = normal((6, 4), (6, 5))
    rotation = torch.linalg.qr(normal((4, 4), seed=1)[0]).Q
    value = sp_loss(student, teacher)
    torch.testing.assert_close(sp_loss(1e-6 * student, 1e6 * teacher), value)
    torch.testing.assert_close(sp_loss(student @ rotation, teacher), value)
    torch.testing.assert_close(sp_loss(-student, teacher), value)
    assert sp_loss(3 * torch.cat([student, torch.zeros(6, 3)], 1), student).abs() <= 1e-14
    assert (sp_loss(torch.arange(1, 7)[:, None] * student, teacher) - value).abs() > 1e-3


@pytest.mark.parametrize('count', [1, 2, 5])
def test_at_most_four_over_the_batch(count):
    """Rows are of length 1, so no two are further apart than 2."""
    for seed in range(20):
        assert 0 <= sp_loss(*normal((count, 3), (count, 2), seed=seed)) <= 4 / count
    lone = torch.ones(1, 3)
    assert sp_loss(lone, -lone) == 0  # similar to itself


def test_samples_of_zeros_have_no_similarities_and_no_gradient_of_their_own_row():
    student, teacher = normal((3, 4), (3, 5))
    student[1] = 0
    value, slope = value_and_gradient(sp_loss, student, teacher)
    assert value.item() == pytest.approx(naive.sp(student.tolist(), teacher.tolist()).real, rel=1e-9)
    assert slope.isfinite().all()
    assert slope.abs().max() < 10
    zeros = torch.zeros(3, 4, dtype=torch.float64)
    value, slope = value_and_gradient(sp_loss, zeros, teacher)
    assert value.item() == pytest.approx(3 / 9)  # three rows of length 1 less rows of zeros
    assert not slope.any()


def test_a_sample_much_shorter_than_the_others_is_not_dead():
    student, teacher = (10 ** torch.linspace(-3, 3, 5)[:, None] * x.float() for x in normal((5, 8), (5, 8)))
    expected = naive.sp(student.tolist(), teacher.tolist()).real
    assert sp_loss(student, teacher).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('other', [(4,), (3, 2), ()])
def test_other_shapes_are_refused(other):
    for shapes in (((4, 3), other), (other, (4, 3))):
        with pytest.raises(ValueError, match=r'expected two tensors \(N, ...\)') as error:
            sp_loss(*(torch.zeros(shape) for shape in shapes))
        assert all(str(shape) in str(error.value) for shape in shapes)
