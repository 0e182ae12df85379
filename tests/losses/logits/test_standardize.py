"""Logit standardisation: z-scores by their formula, hand values in KD and DKD, and what a z-score does not see."""

from functools import partial
from math import sqrt

import pytest
import torch
from torch import Tensor

from mmkd_plugin.losses import DKDLoss, KDLoss, dkd_loss, kd_loss, standardize_logits

from .. import naive
from ..conftest import value_and_gradient

SIZES = [(1, 3), (3, 5), (6, 11)]


def scores(rows: Tensor) -> list[list[complex]]:
    return [naive.z_scores(row) for row in rows.tolist()]


@pytest.mark.parametrize('temperature', [0.5, 2.0, 20.0])
@pytest.mark.parametrize(('n', 'classes'), SIZES)
def test_values_and_gradients_are_those_of_the_formula(logits, n, classes, temperature):
    student, teacher, labels = logits(n, classes)
    rows = torch.tensor([[z.real for z in row] for row in scores(student)], dtype=torch.float64)
    torch.testing.assert_close(standardize_logits(student), rows)
    fixed = scores(teacher)

    def of_kd(batch: naive.Batch) -> complex:
        return naive.kd([naive.z_scores(row) for row in batch], fixed, temperature)

    def of_dkd(batch: naive.Batch) -> complex:
        return naive.dkd([naive.z_scores(row) for row in batch], fixed, labels.tolist(), 0.7, 3.0, temperature)

    kd = partial(kd_loss, teacher=teacher, temperature=temperature, standardize=True)
    dkd = partial(dkd_loss, teacher=teacher, labels=labels, alpha=0.7, beta=3.0, temperature=temperature,
                  standardize=True)  # fmt: skip
    for function, formula in ((kd, of_kd), (dkd, of_dkd)):
        value, gradient = value_and_gradient(function, student)
        assert value.item() == pytest.approx(formula(student.tolist()).real, rel=1e-9)
        expected = torch.tensor(naive.gradient(formula, student.tolist()), dtype=torch.float64)
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)


def test_hand_values():
    teacher, student = torch.tensor([[3.0, 1, -1]]).double(), torch.tensor([[1.0, 0, 0]]).double()
    torch.testing.assert_close(standardize_logits(teacher), torch.tensor([[1.0, 0, -1]]).double(), rtol=0, atol=1e-6)
    expected = torch.tensor([[1.1547005, -0.5773503, -0.5773503]]).double()
    torch.testing.assert_close(standardize_logits(student), expected, rtol=0, atol=1e-6)
    for weight, value in ((1.0, 0.0705938), (9.0, 0.6353446)):
        loss = KDLoss(temperature=2.0, standardize=True, loss_weight=weight)
        assert loss(student, teacher).item() == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize(
    ('classes', 'at_1', 'at_2'),
    [(3, 0.7386, 0.5431), (10, 0.7241, 0.3507), (20, 0.8217, 0.3300), (80, 0.9898, 0.5256), (100, 0.9955, 0.5999),
     (200, 0.9999, 0.8554), (1000, 1.0, 0.9999)],
)  # fmt: skip
def test_how_certain_a_certain_teacher_can_be(classes, at_1, at_2):
    z = standardize_logits(50 * torch.eye(classes, dtype=torch.float64)[:1])
    assert z.max().item() == pytest.approx((classes - 1) / sqrt(classes), rel=1e-6)
    for temperature, expected in ((1.0, at_1), (2.0, at_2)):
        assert (z / temperature).softmax(1).max().item() == pytest.approx(expected, abs=6e-5)


def test_scale_and_shift_of_either_network_are_free(logits):
    student, teacher, labels = logits()
    factor = torch.tensor([[0.1], [1.0], [5.0], [30.0]], dtype=torch.float64)
    for loss in (KDLoss(standardize=True), partial(DKDLoss(standardize=True), labels=labels)):
        torch.testing.assert_close(
            loss(factor * student + 7, teacher / factor - 3), loss(student, teacher), rtol=1e-5, atol=0
        )
        assert loss(factor * teacher + 7, teacher).abs() < 1e-10


def test_the_gradient_does_not_see_the_scale(logits):
    """It is orthogonal to the logits, so that the term says nothing of it, and a third of it where they are thrice."""
    student, teacher, _ = logits()
    gradient = value_and_gradient(kd_loss, student, teacher, 2.0, True)[1]
    centred = student - student.mean(1, keepdim=True)
    assert (gradient * centred).sum(1).abs().max() < 1e-6
    assert gradient.sum(1).abs().max() < 1e-12
    torch.testing.assert_close(
        value_and_gradient(kd_loss, 3 * student, teacher, 2.0, True)[1], gradient / 3, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize('level', [0.0, 0.1, 1234.567])
def test_equal_logits_are_zero_without_gradient(logits, level):
    """Whatever their level is, in float32: rounding would be a z-score."""
    student = torch.full((4, 100), level)
    assert standardize_logits(student).abs().max() == 0
    value, gradient = value_and_gradient(kd_loss, student, logits(4, 100)[1].float(), 2.0, True)
    assert value.isfinite()
    assert gradient.abs().max() == 0


@pytest.mark.parametrize('classes', [1, 2])
def test_two_classes_are_refused_with_advice(logits, classes):
    student, teacher, labels = logits(4, classes)
    for call in (
        lambda: standardize_logits(student),
        lambda: kd_loss(student, teacher, standardize=True),
        lambda: dkd_loss(student, teacher, labels, standardize=True),
    ):
        with pytest.raises(
            ValueError, match=rf'\(4, {classes}\) given, expected at least three.*Use standardize=False'
        ):
            call()


@pytest.mark.parametrize('value', ['yes', 0, 1.0, None])
def test_standardize_is_a_boolean(value):
    for loss in (KDLoss, DKDLoss):
        with pytest.raises(ValueError, match=f'standardize={value!r} given, expected True or False'):
            loss(standardize=value)
