"""LwF: the formula, hand values, and which columns count."""

import cmath
from math import log

import pytest
import torch

from mmkd_plugin.losses import LwFLoss, kd_loss, lwf_loss

from .. import naive
from ..conftest import value_and_gradient

SIZES = [(1, 3, 2), (4, 5, 5), (3, 9, 4)]
FORMS = ['cross_entropy', 'kl']


def of_formula(student, teacher, temperature, form):
    """Mean over samples of the cross-entropy, or of the divergence, over the old columns."""
    rows = []
    for s, t in zip(student, teacher, strict=True):
        # the paper's probabilities to the power of 1/T, renormalised
        powers = [p ** (1 / temperature) for p in naive.softmax(t, 1.0)]
        p, q = [a / sum(powers) for a in powers], naive.softmax(s[: len(t)], temperature)
        entropy = -sum(a * cmath.log(a) for a in p)
        rows.append(naive.divergence(p, q) + (entropy if form == 'cross_entropy' else 0))
    return naive.mean(rows)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize(('n', 'classes', 'old'), SIZES)
def test_value_and_gradient_are_those_of_the_formula(logits, n, classes, old, temperature, form):
    student, teacher, _ = logits(n, classes)
    rows = teacher[:, :old].tolist()
    value, gradient = value_and_gradient(lwf_loss, student, teacher[:, :old], temperature, form)
    assert value.item() == pytest.approx(of_formula(student.tolist(), rows, temperature, form).real, rel=1e-9)
    expected = naive.gradient(lambda x: of_formula(x, rows, temperature, form), student.tolist())
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert not gradient[:, old:].any()
    torch.testing.assert_close(LwFLoss(temperature, 0.7, form)(student, teacher[:, :old]), 0.7 * value)


@pytest.mark.parametrize(
    ('student', 'teacher', 'temperature', 'form', 'expected'),
    [
        # reference, D15: p = softmax([1, 1/2]) = [.6224593, .3775407] against [1/2, 1/2]
        ([0, 0, 5], [2, 1], 2, 'cross_entropy', 0.6931472),
        ([0, 0, 5], [2, 1], 2, 'kl', 0.0302999),
        # p = [2/3, 1/3], q = [1/3, 2/3]: -2/3 ln 1/3 - 1/3 ln 2/3, and 1/3 ln 2
        ([0, log(2)], [log(2), 0], 1, 'cross_entropy', 0.8675632),
        ([0, log(2)], [log(2), 0], 1, 'kl', 0.2310491),
    ],
)
def test_hand_values(student, teacher, temperature, form, expected):
    value = lwf_loss(torch.tensor([student]).float(), torch.tensor([teacher]).float(), temperature, form)
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_kl_is_kd_among_the_old_classes_without_its_factor(logits):
    student, teacher, _ = logits(4, 7)
    torch.testing.assert_close(
        lwf_loss(student, teacher[:, :4], 3.0, 'kl'), kd_loss(student[:, :4], teacher[:, :4], 3.0) / 9
    )


@pytest.mark.parametrize('form', FORMS)
def test_a_copy_of_the_old_columns_has_no_slope(logits, form):
    """Before the first update nothing pulls at the old classes, whatever the new columns say."""
    student, _, _ = logits(4, 7)
    value, gradient = value_and_gradient(lwf_loss, student, student[:, :4].clone(), 2.0, form)
    assert gradient.abs().max() < 1e-15
    assert (value.abs() < 1e-15) == (form == 'kl')


def test_another_form_is_refused(logits):
    with pytest.raises(ValueError, match="form='mse' given, expected one of 'cross_entropy', 'kl'"):
        LwFLoss(form='mse')
