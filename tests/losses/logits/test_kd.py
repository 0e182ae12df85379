"""KD: the formula, hand values, and what a softmax does not see."""

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkd_plugin.losses import KDLoss, kd_loss

from .. import naive
from ..conftest import value_and_gradient

SIZES = [(1, 2), (1, 7), (4, 2), (3, 5), (6, 11)]
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    """A student's and a teacher's logits, and a temperature."""
    n, classes = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    row = st.lists(st.floats(-20, 20), min_size=classes, max_size=classes)
    student, teacher = (
        torch.tensor(draw(st.lists(row, min_size=n, max_size=n)), dtype=torch.float64) for _ in range(2)
    )
    return student, teacher, draw(st.floats(0.5, 10))


@pytest.mark.parametrize('temperature', TEMPERATURES)
@pytest.mark.parametrize(('n', 'classes'), SIZES)
def test_value_and_gradient_are_those_of_the_formula(logits, n, classes, temperature):
    student, teacher, _ = logits(n, classes)
    rows = teacher.tolist()
    value, gradient = value_and_gradient(kd_loss, student, teacher, temperature)
    assert value.item() == pytest.approx(naive.kd(student.tolist(), rows, temperature).real, rel=1e-9)
    expected = naive.gradient(lambda x: naive.kd(x, rows, temperature), student.tolist())
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(KDLoss(temperature, loss_weight=0.7)(student, teacher), 0.7 * value)


@given(pairs(), st.floats(-50, 50), st.floats(-50, 50))
@settings(deadline=None, max_examples=25)
def test_any_logits_give_the_formula_and_only_their_differences_count(pair, student_shift, teacher_shift):
    student, teacher, temperature = pair
    value = kd_loss(student, teacher, temperature)
    expected = naive.kd(student.tolist(), teacher.tolist(), temperature).real
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-11)
    shifted = kd_loss(student + student_shift, teacher + teacher_shift, temperature)
    torch.testing.assert_close(shifted, value, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ('student', 'teacher', 'temperature', 'expected'),
    [
        # p_t = [2/3, 1/3], p_s = [1/2, 1/2]: 2/3 ln 4/3 + 1/3 ln 2/3
        ([0, 0], [log(2), 0], 1, 0.0566330),
        # the other way round: 1/2 ln 3/4 + 1/2 ln 3/2; the teacher is the reference distribution
        ([log(2), 0], [0, 0], 1, 0.0588915),
        # logits twice as large at T = 2: the same softmax, times T²
        ([0, 0], [2 * log(2), 0], 2, 4 * 0.0566330),
        # p_t = [1/2, 1/4, 1/4], p_s = [1/4, 1/2, 1/4]: 1/2 ln 2 − 1/4 ln 2
        ([log(0.25), log(0.5), log(0.25)], [log(0.5), log(0.25), log(0.25)], 1, 0.1732868),
        # certain of class 0 and of class 1: T² · (1e4 − (−1e4)) / T, more than float16 can hold
        ([-1e4, 1e4, 0.0], [1e4, -1e4, 0.0], 4, 8e4),
    ],
)
def test_hand_values(student, teacher, temperature, expected):
    value = kd_loss(torch.tensor([student]).double(), torch.tensor([teacher]).double(), temperature)
    assert value.item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_gradient_is_the_difference_of_the_softmaxes(logits, temperature):
    student, teacher, _ = logits()
    difference = (student / temperature).softmax(1) - (teacher / temperature).softmax(1)
    gradient = value_and_gradient(kd_loss, student, teacher, temperature)[1]
    torch.testing.assert_close(gradient, temperature / len(student) * difference)


def test_hot_gradient_matches_centred_logits(logits):
    student, teacher, _ = logits()
    difference = student - teacher
    expected = (difference - difference.mean(1, keepdim=True)) / difference.numel()
    gradient = value_and_gradient(kd_loss, student, teacher, 1e5)[1]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_zero_and_flat_where_student_equals_teacher_up_to_a_shift(logits):
    teacher = logits()[1]
    shift = torch.tensor([[-7.0], [0.0], [0.5], [30.0]], dtype=torch.float64)
    for student, tolerance in [(teacher, 0), (teacher + shift, 1e-12)]:
        value, gradient = value_and_gradient(kd_loss, student, teacher, 4.0)
        assert value.abs() <= tolerance
        assert gradient.abs().max() <= 1e-14


def test_order_of_classes_is_free_and_a_class_that_nobody_believes_in_adds_nothing(logits):
    student, teacher, _ = logits(4, 6)
    value, order = kd_loss(student, teacher), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(kd_loss(student[:, order], teacher[:, order]), value)
    # it is a sum over classes: a mean would shrink
    ruled_out = torch.full((4, 1), -1e4, dtype=torch.float64)
    torch.testing.assert_close(kd_loss(torch.cat([student, ruled_out], 1), torch.cat([teacher, ruled_out], 1)), value)


def test_default_temperature_is_four(logits):
    student, teacher, _ = logits()
    assert KDLoss()(student, teacher) == kd_loss(student, teacher) == kd_loss(student, teacher, temperature=4.0)


@pytest.mark.parametrize('temperature', [0, -1.0, float('nan'), float('inf')])
def test_wrong_temperature_is_refused(temperature):
    logits = torch.zeros(1, 2)
    for call in (lambda: KDLoss(temperature=temperature), lambda: kd_loss(logits, logits, temperature)):
        with pytest.raises(ValueError, match=f'temperature={temperature}'):
            call()
