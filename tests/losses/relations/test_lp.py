"""LP: the formula, hand values, neighbours, and what it does not see of the vectors."""

from math import exp

import pytest
import torch

from mmkd_plugin.losses import LPLoss, lp_loss
from mmkd_plugin.losses.relations.lp import _neighbours

from ..conftest import value_and_gradient
from ..naive_features import gradient, normal
from . import naive_samples as naive

sigmas = pytest.mark.parametrize('sigma2', ['mean', 2.0, 10])


@sigmas
@pytest.mark.parametrize('k', [1, 3, 5, 50])
@pytest.mark.parametrize('shapes', [((2, 3), (2, 5)), ((8, 4), (8, 4)), ((7, 2), (7, 9))])
def test_value_and_gradient_are_those_of_the_formula(shapes, k, sigma2):
    student, teacher = normal(*shapes)
    value, slope = value_and_gradient(lp_loss, student, teacher, k, sigma2)
    constants = (teacher.tolist(), k, sigma2)
    assert value.item() == pytest.approx(naive.lp(student.tolist(), *constants).real, rel=1e-9, abs=1e-13)
    expected = gradient(lambda x: naive.lp(x, *constants), student)
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-12)


def test_maps_are_averaged_and_may_meet_vectors():
    student, teacher = normal((6, 3, 2, 5), (6, 4))
    value, slope = value_and_gradient(lp_loss, student, teacher, 2, 'mean')
    constants = (teacher.tolist(), 2, 'mean')
    assert value.item() == pytest.approx(naive.lp(naive.averaged(student.tolist()), *constants).real, rel=1e-9)
    expected = gradient(lambda x: naive.lp(naive.averaged(x), *constants), student)
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-12)


def test_hand_values():
    teacher = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    student = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    # nearest: 0 -> 1, 1 -> 0, 2 -> 1; |t|^2 of these 1, 1, 4 and |s|^2 25, 25, 18
    expected = (50 * exp(-1 / 2) + 18 * exp(-4 / 2)) / 3
    assert lp_loss(student, teacher, k=1, sigma2=2).item() == pytest.approx(expected)
    # the mean of 1, 4 and 9 is 14/3
    expected = (50 * exp(-3 / 14) + 18 * exp(-12 / 14)) / 3
    assert lp_loss(student, teacher, k=1, sigma2='mean').item() == pytest.approx(expected)
    # both others of each, though 5 are asked for
    expected = 2 * (25 * exp(-1 / 2) + 18 * exp(-4 / 2) + exp(-9 / 2)) / 6
    assert lp_loss(student, teacher).item() == pytest.approx(expected)
    assert LPLoss()(student, teacher).item() == pytest.approx(1.5 * expected)


@sigmas
def test_each_sample_has_k_neighbours_and_is_none_of_its_own(sigma2):
    (teacher,) = normal((9, 4))
    for k in (1, 4, 8, 20):
        weights = _neighbours(teacher, k, sigma2)
        assert (weights > 0).sum(1).tolist() == [min(k, 8)] * 9
        assert not weights.diagonal().any()
    copies = teacher.repeat_interleave(3, 0)  # each has two others at no distance
    weights = _neighbours(copies, 2, sigma2)
    assert weights.sum(1).tolist() == [2] * 27
    assert not weights.diagonal().any()


def test_of_equally_near_ones_any_will_do():
    """The corners of a square: two others are near, and one of them is taken."""
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    weights = _neighbours(square, 1, 1.0)
    assert weights.sum(1).tolist() == pytest.approx([exp(-1)] * 4)
    assert lp_loss(square, square, k=1, sigma2=1.0).item() == pytest.approx(exp(-1))
    # all the same to the teacher
    (student,) = normal((4, 3))
    value, slope = value_and_gradient(lp_loss, student, torch.ones(4, 2), 3)
    squared = (student[:, None] - student).square().sum(2)
    assert value.item() == pytest.approx(squared.sum().item() / 12)
    assert slope.isfinite().all()


def test_constant_students_give_zero_and_only_a_task_loss_keeps_them_apart():
    student, teacher = normal((6, 4), (6, 5))
    assert lp_loss(torch.ones(6, 3), teacher, sigma2='mean').abs() <= 1e-12
    assert lp_loss(1e3 * torch.ones(6, 3) / 7, teacher.float(), sigma2='mean').abs() <= 1e-6
    torch.testing.assert_close(lp_loss(0.1 * student, teacher), 0.01 * lp_loss(student, teacher))


def test_translation_is_free_and_with_the_mean_the_teachers_scale():
    student, teacher = normal((6, 4), (6, 5))
    value = lp_loss(student, teacher, 2, 'mean')
    torch.testing.assert_close(lp_loss(student + 100, teacher - 50, 2, 'mean'), value)
    for scale in (1e-3, 30):
        torch.testing.assert_close(lp_loss(student, scale * teacher, 2, 'mean'), value)
    assert lp_loss(student, 100 * teacher, 2) == 0  # which underflows
    near = lp_loss(student.float() + 1000, teacher.float() + 1000, 2, 'mean')
    assert near.item() == pytest.approx(value.item(), rel=1e-3)  # the vectors have that many digits left


def test_less_than_two_samples_give_zero():
    for count in (0, 1):
        value, slope = value_and_gradient(lp_loss, torch.ones(count, 3), torch.ones(count, 2))
        assert value == 0
        assert not slope.any()


def test_what_is_out_of_range_is_refused():
    pair = torch.zeros(3, 2), torch.zeros(3, 2)
    for sigma2 in ('median', 0, -1.0, float('nan'), None):
        with pytest.raises(ValueError, match="expected a finite number > 0 or 'mean'"):
            LPLoss(sigma2=sigma2)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="expected a finite number > 0 or 'mean'"):
            lp_loss(*pair, sigma2=sigma2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='k=0 given, expected a whole number >= 1'):
        LPLoss(k=0)
    with pytest.raises(ValueError, match='k=0 given, expected a whole number >= 1'):
        lp_loss(*pair, k=0)
    with pytest.raises(ValueError, match=r'\(3, 2\) and teacher \(3, 2, 2\) given, expected vectors'):
        lp_loss(torch.zeros(3, 2), torch.zeros(3, 2, 2))
