"""DKD: the formulas of both terms, hand values, and what each term does not see."""

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkd_plugin.losses import DKDLoss, dkd_loss, dkd_terms, kd_loss

from .. import naive
from ..conftest import value_and_gradient

SIZES = [(1, 2), (1, 7), (4, 2), (3, 5), (6, 11)]
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]


@st.composite
def triples(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, float]:
    """A student's and a teacher's logits, labels, and a temperature."""
    n, classes = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    row = st.lists(st.floats(-15, 15), min_size=classes, max_size=classes)
    student, teacher = (
        torch.tensor(draw(st.lists(row, min_size=n, max_size=n)), dtype=torch.float64) for _ in range(2)
    )
    labels = torch.tensor(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    return student, teacher, labels, draw(st.floats(0.5, 10))


def with_target_shifted(logits: Tensor, labels: Tensor, shift: float) -> Tensor:
    return logits + shift * torch.nn.functional.one_hot(labels, logits.shape[1])


@pytest.mark.parametrize('temperature', TEMPERATURES)
@pytest.mark.parametrize(('n', 'classes'), SIZES)
def test_terms_value_and_gradient_are_those_of_the_formulas(logits, n, classes, temperature):
    student, teacher, labels = logits(n, classes)
    rows = list(zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True))
    terms = dkd_terms(student, teacher, labels, temperature)
    for term, formula in zip(terms, (naive.tckd, naive.nckd), strict=True):
        by_row = [formula(s, t, y, temperature).real for s, t, y in rows]
        torch.testing.assert_close(term, torch.tensor(by_row, dtype=torch.float64), rtol=1e-9, atol=1e-13)
    constants = (teacher.tolist(), labels.tolist(), 0.7, 3.0, temperature)
    value, gradient = value_and_gradient(dkd_loss, student, teacher, labels, 0.7, 3.0, temperature)
    assert value.item() == pytest.approx(naive.dkd(student.tolist(), *constants).real, rel=1e-9)
    expected = naive.gradient(lambda x: naive.dkd(x, *constants), student.tolist())
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    weighed = DKDLoss(0.7, 3.0, temperature, loss_weight=0.9)(student, teacher, labels)
    torch.testing.assert_close(weighed, 0.9 * value)


@given(triples(), st.floats(0, 3), st.floats(0, 10))
@settings(deadline=None, max_examples=25)
def test_any_logits_give_the_formula(triple, alpha, beta):
    student, teacher, labels, temperature = triple
    value = dkd_loss(student, teacher, labels, alpha, beta, temperature)
    expected = naive.dkd(student.tolist(), teacher.tolist(), labels.tolist(), alpha, beta, temperature).real
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_hand_values():
    student, teacher = (torch.tensor([p], dtype=torch.float64).log() for p in ([0.25, 0.5, 0.25], [0.5, 0.25, 0.25]))
    tckd, nckd = dkd_terms(student, teacher, torch.tensor([0]), 1.0)
    # b = [1/2, 1/2] against [1/4, 3/4]; phat = [1/2, 1/2] against [2/3, 1/3]
    assert tckd.item() == pytest.approx(0.1438410, abs=1e-7)
    assert nckd.item() == pytest.approx(0.0588915, abs=1e-7)
    # the same softmaxes at T = 2 weigh T²
    value = dkd_loss(2 * student, 2 * teacher, torch.tensor([0]), alpha=1.0, beta=8.0, temperature=2.0)
    assert value.item() == pytest.approx(4 * (0.1438410 + 8 * 0.0588915), abs=4e-6)


@pytest.mark.parametrize(
    ('student', 'teacher', 'tckd', 'nckd', 'slope'),
    [
        # certain of different classes; T = 1, gradient of TCKD + NCKD
        ([0, 1e4, 0], [1e4, 0, 0], 1e4, 5e3 - log(2), [-1, 1 + 0.5, -0.5]),
        # the teacher certain of the target, the student certain that it is another
        ([-1e4, 0, 0], [1e4, 0, 0], 1e4 + log(2), 0, [-1, 0.5, 0.5]),
        # both certain of the target, disagreeing on the rest
        ([1e4, 0, 0], [1e4, log(2), 0], 0, 0.0566330, [0, 0.5 - 2 / 3, 0.5 - 1 / 3]),
        # both certain that it is not the target
        ([-1e4, 0, 0], [-1e4, log(2), 0], 0, 0.0566330, [0, 0.5 - 2 / 3, 0.5 - 1 / 3]),
    ],
)
def test_saturated_hand_values(student, teacher, tckd, nckd, slope):
    z_s, z_t, label = torch.tensor([student]).float(), torch.tensor([teacher]).float(), torch.tensor([0])
    expected = torch.tensor([tckd]).float(), torch.tensor([nckd]).float()
    torch.testing.assert_close(dkd_terms(z_s, z_t, label, 1.0), expected, rtol=1e-6, atol=1e-6)
    gradient = value_and_gradient(dkd_loss, z_s, z_t, label, 1.0, 1.0, 1.0)[1]
    torch.testing.assert_close(gradient, torch.tensor([slope]).float(), rtol=1e-5, atol=1e-6)


@given(triples())
@settings(deadline=None, max_examples=25)
def test_kd_is_tckd_and_nckd_weighed_by_the_teachers_doubt(triple):
    student, teacher, labels, temperature = triple
    tckd, nckd = dkd_terms(student, teacher, labels, temperature)
    doubt = 1 - (teacher / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
    kd = kd_loss(student, teacher, temperature)
    torch.testing.assert_close(temperature**2 * (tckd + doubt * nckd).mean(), kd, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_gradient_is_that_of_kd_where_beta_is_the_teachers_doubt(logits, temperature):
    student, teacher, labels = logits(1, 6)
    p_s, p_t = ((x / temperature).softmax(1) for x in (student, teacher))
    doubt = 1 - p_t[0, labels].item()
    gradient = value_and_gradient(dkd_loss, student, teacher, labels, 1.0, doubt, temperature)[1]
    torch.testing.assert_close(gradient, temperature * (p_s - p_t))


def test_the_published_way_of_masking_gives_the_same(logits):
    """The authors' code subtracts 1000 from the target logit and sums probabilities."""
    student, teacher, labels = logits(8, 10)
    target = torch.nn.functional.one_hot(labels, 10).bool()

    def two_and_rest(x: Tensor) -> tuple[Tensor, Tensor]:
        p = (x / 4.0).softmax(1)
        two = torch.stack([p[target], (p * ~target).sum(1)], 1)
        return two, (x / 4.0 - 1000.0 * target).softmax(1)

    (b_s, rest_s), (b_t, rest_t) = two_and_rest(student), two_and_rest(teacher)
    tckd = (b_t * (b_t.log() - b_s.log())).sum(1)
    nckd = torch.where(target, 0, rest_t * (rest_t.log() - rest_s.log())).sum(1)
    terms = dkd_terms(student, teacher, labels, 4.0)
    torch.testing.assert_close(terms, (tckd, nckd), rtol=1e-9, atol=1e-13)


@given(triples(), st.floats(-50, 50), st.floats(-50, 50))
@settings(deadline=None, max_examples=25)
def test_shifts_of_all_logits_and_nckd_those_of_the_target_are_free(triple, student_shift, teacher_shift):
    student, teacher, labels, temperature = triple
    terms = dkd_terms(student, teacher, labels, temperature)
    shifted = dkd_terms(student + student_shift, teacher + teacher_shift, labels, temperature)
    torch.testing.assert_close(shifted, terms, rtol=1e-8, atol=1e-10)
    of_target = (
        with_target_shifted(student, labels, student_shift),
        with_target_shifted(teacher, labels, teacher_shift),
    )
    torch.testing.assert_close(dkd_terms(*of_target, labels, temperature)[1], terms[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_nckd_stays_accurate_in_float32_beside_a_dominant_target(logits, temperature):
    """What distinguishes the other classes survives a confident target: the point of the method."""
    student, teacher, labels = logits(4, 5, scale=1.0)
    expected = dkd_terms(student, teacher, labels, temperature)[1]
    student, teacher = (with_target_shifted(x, labels, 100.0).float() for x in (student, teacher))
    nckd = dkd_terms(student, teacher, labels, temperature)[1]
    torch.testing.assert_close(nckd, expected.float(), rtol=1e-4, atol=1e-6)


def test_tckd_does_not_see_the_order_of_the_other_classes(logits):
    student, teacher, _ = logits(4, 5)
    labels = torch.zeros(4, dtype=torch.int64)
    tckd, nckd = dkd_terms(student, teacher, labels, 4.0)
    others_reversed = dkd_terms(student[:, [0, 4, 3, 2, 1]], teacher, labels, 4.0)
    torch.testing.assert_close(others_reversed[0], tckd)
    assert (others_reversed[1] - nckd).abs().min() > 1e-4


@pytest.mark.parametrize('n', [1, 5])
def test_two_classes_leave_no_rest(logits, n):
    student, teacher, labels = logits(n, 2)
    tckd, nckd = dkd_terms(student, teacher, labels, 4.0)
    torch.testing.assert_close(nckd, torch.zeros_like(nckd), rtol=0, atol=1e-15)
    torch.testing.assert_close(16 * tckd.mean(), kd_loss(student, teacher, 4.0))
    assert value_and_gradient(dkd_loss, student, teacher, labels, 0.0, 8.0)[1].abs().max() <= 1e-14


def test_zero_and_flat_where_student_equals_teacher_up_to_a_shift(logits):
    _, teacher, labels = logits()
    shift = torch.tensor([[-7.0], [0.0], [0.5], [30.0]], dtype=torch.float64)
    for student, tolerance in [(teacher, 0), (teacher + shift, 1e-12)]:
        assert all(term.abs().max() <= tolerance for term in dkd_terms(student, teacher, labels, 4.0))
        value, gradient = value_and_gradient(dkd_loss, student, teacher, labels)
        assert value.abs() <= 1e3 * tolerance
        assert gradient.abs().max() <= 1e-13


def test_order_of_classes_is_free(logits):
    student, teacher, labels = logits(4, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = dkd_loss(student[:, order], teacher[:, order], order.argsort()[labels])
    torch.testing.assert_close(permuted, dkd_loss(student, teacher, labels))


def test_label_is_the_target_whatever_the_teacher_thinks(logits):
    student, teacher, _ = logits(1, 4)
    values = [dkd_loss(student, teacher, torch.tensor([y])).item() for y in range(4)]
    expected = [naive.dkd(student.tolist(), teacher.tolist(), [y], 1.0, 8.0, 4.0).real for y in range(4)]
    assert values == pytest.approx(expected, rel=1e-9)
    assert len({round(value, 4) for value in values}) == 4


def test_defaults_are_the_papers(logits):
    student, teacher, labels = logits()
    expected = dkd_loss(student, teacher, labels, alpha=1.0, beta=8.0, temperature=4.0)
    assert DKDLoss()(student, teacher, labels) == dkd_loss(student, teacher, labels) == expected
    assert DKDLoss(alpha=0, beta=0)(student, teacher, labels) == 0


@pytest.mark.parametrize('function', [dkd_loss, dkd_terms])
def test_what_is_refused(logits, function):
    for temperature in (0, -1.0, float('nan'), float('inf')):
        with pytest.raises(ValueError, match=f'temperature={temperature}'):
            function(*logits(), temperature=temperature)
        with pytest.raises(ValueError, match=f'temperature={temperature}'):
            DKDLoss(temperature=temperature)
    with pytest.raises(ValueError, match='at least two classes'):
        function(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))
