from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkd_plugin.losses import KDLoss, kd_loss

from . import naive

SIZES = [(1, 2), (1, 7), (4, 2), (3, 5), (6, 11)]
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]
LOW_PRECISION = [torch.bfloat16, torch.float16]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    """A student's and a teacher's logits, and a temperature."""
    n, classes = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    row = st.lists(st.floats(-20, 20), min_size=classes, max_size=classes)
    student, teacher = (
        torch.tensor(draw(st.lists(row, min_size=n, max_size=n)), dtype=torch.float64) for _ in range(2)
    )
    return student, teacher, draw(st.floats(0.5, 10))


def value_and_gradient(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    student = student.detach().clone().requires_grad_()
    value = kd_loss(student, teacher, temperature)
    return value.detach(), torch.autograd.grad(value, student)[0]


@pytest.mark.parametrize('temperature', TEMPERATURES)
@pytest.mark.parametrize(('n', 'classes'), SIZES)
def test_value_and_gradient_are_those_of_the_formula(logits, n, classes, temperature):
    student, teacher, _ = logits(n, classes)
    rows = teacher.tolist()
    value, gradient = value_and_gradient(student, teacher, temperature)
    assert value.item() == pytest.approx(naive.kd(student.tolist(), rows, temperature).real, rel=1e-9)
    expected = naive.gradient(lambda x: naive.kd(x, rows, temperature), student.tolist())
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@given(pairs())
@settings(deadline=None, max_examples=25)
def test_any_logits_give_the_formula(pair):
    student, teacher, temperature = pair
    expected = naive.kd(student.tolist(), teacher.tolist(), temperature).real
    assert kd_loss(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-11)


@given(pairs(), st.floats(-50, 50), st.floats(-50, 50))
@settings(deadline=None, max_examples=25)
def test_only_differences_of_logits_count(pair, student_shift, teacher_shift):
    student, teacher, temperature = pair
    shifted = kd_loss(student + student_shift, teacher + teacher_shift, temperature)
    torch.testing.assert_close(shifted, kd_loss(student, teacher, temperature), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ('student', 'teacher', 'temperature', 'expected'),
    [
        # p_t = [2/3, 1/3], p_s = [1/2, 1/2]: 2/3 ln 4/3 + 1/3 ln 2/3
        ([0, 0], [log(2), 0], 1, 0.0566330),
        # the other way round: 1/2 ln 3/4 + 1/2 ln 3/2
        ([log(2), 0], [0, 0], 1, 0.0588915),
        # logits twice as large at T = 2: the same softmax, times T²
        ([0, 0], [2 * log(2), 0], 2, 4 * 0.0566330),
        # p_t = [1/2, 1/4, 1/4], p_s = [1/4, 1/2, 1/4]: 1/2 ln 2 − 1/4 ln 2
        ([log(0.25), log(0.5), log(0.25)], [log(0.5), log(0.25), log(0.25)], 1, 0.1732868),
    ],
)
def test_hand_values(student, teacher, temperature, expected):
    value = kd_loss(
        torch.tensor([student], dtype=torch.float64), torch.tensor([teacher], dtype=torch.float64), temperature
    )
    assert value.item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_gradient_is_the_difference_of_the_softmaxes(logits, temperature):
    student, teacher, _ = logits()
    difference = (student / temperature).softmax(1) - (teacher / temperature).softmax(1)
    gradient = value_and_gradient(student, teacher, temperature)[1]
    torch.testing.assert_close(gradient, temperature / len(student) * difference)


def test_hot_gradient_matches_centred_logits(logits):
    student, teacher, _ = logits()
    difference = student - teacher
    expected = (difference - difference.mean(1, keepdim=True)) / difference.numel()
    gradient = value_and_gradient(student, teacher, 1e5)[1]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_gradcheck(logits, temperature):
    student, teacher, _ = logits(3, 4)
    assert torch.autograd.gradcheck(lambda s: kd_loss(s, teacher, temperature), student.requires_grad_())


def test_zero_and_flat_where_student_equals_teacher_up_to_a_shift(logits):
    teacher = logits()[1]
    shift = torch.tensor([[-7.0], [0.0], [0.5], [30.0]], dtype=torch.float64)
    for student, tolerance in [(teacher, 0), (teacher + shift, 1e-12)]:
        value, gradient = value_and_gradient(student, teacher, 4.0)
        assert value.abs() <= tolerance
        assert gradient.abs().max() <= 1e-14


def test_order_of_classes_and_of_samples_is_free(logits):
    student, teacher, _ = logits(4, 6)
    value = kd_loss(student, teacher)
    classes, samples = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(kd_loss(student[:, classes], teacher[:, classes]), value)
    torch.testing.assert_close(kd_loss(student[samples], teacher[samples]), value)


def test_mean_over_the_batch_and_sum_over_classes(logits):
    student, teacher, _ = logits(6, 3)
    parts = [kd_loss(s[None], teacher[i][None]) for i, s in enumerate(student)]
    torch.testing.assert_close(kd_loss(student, teacher), torch.stack(parts).mean())
    # a class that nobody believes in adds nothing: a mean over classes would shrink
    ruled_out = torch.full((6, 1), -1e4, dtype=torch.float64)
    wider = kd_loss(torch.cat([student, ruled_out], 1), torch.cat([teacher, ruled_out], 1))
    torch.testing.assert_close(wider, kd_loss(student, teacher))


def test_teacher_is_the_reference_distribution(logits):
    student, teacher, _ = logits()
    reverse = naive.kd(teacher.tolist(), student.tolist(), 4.0).real
    assert abs(kd_loss(student, teacher).item() - reverse) > 1e-2


def test_default_temperature_is_four(logits):
    student, teacher, _ = logits()
    expected = kd_loss(student, teacher, temperature=4.0)
    assert kd_loss(student, teacher) == expected
    assert KDLoss()(student, teacher) == expected


def test_class_weighs_the_function(logits):
    student, teacher, _ = logits()
    for weight in (0.0, 0.9, 30.0):
        value = KDLoss(temperature=2.0, loss_weight=weight)(student, teacher)
        torch.testing.assert_close(value, weight * kd_loss(student, teacher, 2.0))


def test_teacher_gets_no_gradient(logits):
    student, teacher, _ = logits()
    student.requires_grad_(), teacher.requires_grad_()
    kd_loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_saturated_logits_stay_finite(saturated, temperature):
    student, teacher = saturated
    value, gradient = value_and_gradient(student, teacher, temperature)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert gradient.isfinite().all()
    doubles = value_and_gradient(student.double(), teacher.double(), temperature)
    torch.testing.assert_close((value.double(), gradient.double()), doubles, rtol=1e-5, atol=1e-7)


def test_saturated_hand_values():
    # the teacher is certain of class 0, the student of class 1: T² · (1e4 − (−1e4)) / T
    student, teacher = torch.tensor([[-1e4, 1e4, 0.0]]), torch.tensor([[1e4, -1e4, 0.0]])
    value, gradient = value_and_gradient(student, teacher, 4.0)
    assert value.item() == pytest.approx(8e4, rel=1e-6)  # more than float16 can hold
    torch.testing.assert_close(gradient, torch.tensor([[-4.0, 4.0, 0.0]]))


@pytest.mark.parametrize('dtype', LOW_PRECISION)
def test_autocast_computes_in_float32(saturated, dtype):
    student, teacher = saturated
    expected = value_and_gradient(student, teacher, 4.0)
    with torch.autocast('cpu', dtype=dtype):
        value, gradient = value_and_gradient(student, teacher, 4.0)
    assert value.dtype == torch.float32
    torch.testing.assert_close((value, gradient), expected, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', LOW_PRECISION)
def test_half_precision_logits_are_raised(saturated, dtype):
    student, teacher = (x.to(dtype) for x in saturated)
    value, gradient = value_and_gradient(student, teacher, 4.0)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    expected, slope = value_and_gradient(student.float(), teacher.float(), 4.0)
    assert value == expected
    torch.testing.assert_close(gradient, slope.to(dtype))
    mixed = value_and_gradient(student, teacher.float(), 4.0)[0]
    assert mixed == expected


@pytest.mark.parametrize(
    ('student', 'teacher'),
    [((4, 3), (4, 5)), ((4, 3), (2, 3)), ((4, 3), (3,)), ((4, 3), (1, 3)), ((3,), (3,)), ((4, 3, 2, 2), (4, 3, 2, 2))],
)
def test_logits_of_other_shapes_are_refused(student, teacher):
    with pytest.raises(ValueError, match='expected two tensors of the same shape') as error:
        kd_loss(torch.zeros(student), torch.zeros(teacher))
    assert str(student) in str(error.value)
    assert str(teacher) in str(error.value)


@pytest.mark.parametrize('temperature', [0, -1.0, float('nan'), float('inf')])
def test_wrong_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match=f'temperature={temperature}'):
        KDLoss(temperature=temperature)


@pytest.mark.parametrize('temperature', [0, -1.0, float('nan'), float('inf')])
def test_function_refuses_a_wrong_temperature(temperature):
    with pytest.raises(ValueError, match=f'temperature={temperature}'):
        kd_loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature)


@pytest.mark.parametrize('weight', [-1, float('nan'), float('inf')])
def test_wrong_weight_is_refused(weight):
    with pytest.raises(ValueError, match=f'KDLoss: loss_weight={weight}'):
        KDLoss(loss_weight=weight)
