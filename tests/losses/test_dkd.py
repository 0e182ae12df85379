from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkd_plugin.losses import DKDLoss, dkd_loss, dkd_terms, kd_loss

from . import naive

SIZES = [(1, 2), (1, 7), (4, 2), (3, 5), (6, 11)]
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]
LOW_PRECISION = [torch.bfloat16, torch.float16]


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


def value_and_gradient(student: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
    student = student.detach().clone().requires_grad_()
    value = dkd_loss(student, *args, **kwargs)  # type: ignore[arg-type]
    return value.detach(), torch.autograd.grad(value, student)[0]


def with_target_shifted(logits: Tensor, labels: Tensor, shift: float) -> Tensor:
    return logits + shift * torch.nn.functional.one_hot(labels, logits.shape[1])


@pytest.mark.parametrize('temperature', TEMPERATURES)
@pytest.mark.parametrize(('n', 'classes'), SIZES)
def test_terms_are_those_of_the_formulas(logits, n, classes, temperature):
    student, teacher, labels = logits(n, classes)
    terms = dkd_terms(student, teacher, labels, temperature)
    rows = list(zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True))
    for term, formula in zip(terms, (naive.tckd, naive.nckd), strict=True):
        assert term.shape == (n,)
        expected = [formula(s, t, y, temperature).real for s, t, y in rows]
        torch.testing.assert_close(term, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize('temperature', TEMPERATURES)
@pytest.mark.parametrize(('n', 'classes'), SIZES)
def test_value_and_gradient_are_those_of_the_formula(logits, n, classes, temperature):
    student, teacher, labels = logits(n, classes)
    constants = (teacher.tolist(), labels.tolist(), 0.7, 3.0, temperature)
    value, gradient = value_and_gradient(student, teacher, labels, 0.7, 3.0, temperature)
    assert value.item() == pytest.approx(naive.dkd(student.tolist(), *constants).real, rel=1e-9)
    expected = naive.gradient(lambda x: naive.dkd(x, *constants), student.tolist())
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


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
    value = dkd_loss(student, teacher, torch.tensor([0]), alpha=1.0, beta=0.5, temperature=1.0)
    assert value.item() == pytest.approx(0.1732868, abs=1e-7)
    # the same softmaxes at T = 2 weigh T²
    value = dkd_loss(2 * student, 2 * teacher, torch.tensor([0]), alpha=1.0, beta=8.0, temperature=2.0)
    assert value.item() == pytest.approx(4 * (0.1438410 + 8 * 0.0588915), abs=4e-6)


@given(triples())
@settings(deadline=None, max_examples=25)
def test_kd_is_tckd_and_nckd_weighed_by_the_teachers_doubt(triple):
    student, teacher, labels, temperature = triple
    tckd, nckd = dkd_terms(student, teacher, labels, temperature)
    doubt = 1 - (teacher / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
    kd = kd_loss(student, teacher, temperature)
    torch.testing.assert_close(temperature**2 * (tckd + doubt * nckd).mean(), kd, rtol=1e-9, atol=1e-10)


def test_kd_is_not_nckd_weighed_by_the_students_doubt(logits):
    student, teacher, labels = logits()
    tckd, nckd = dkd_terms(student, teacher, labels, 1.0)
    doubt = 1 - student.softmax(1).gather(1, labels[:, None])[:, 0]
    assert ((tckd + doubt * nckd).mean() - kd_loss(student, teacher, 1.0)).abs() > 1e-2


@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_gradient_is_that_of_kd_where_beta_is_the_teachers_doubt(logits, temperature):
    student, teacher, labels = logits(1, 6)
    p_s, p_t = ((x / temperature).softmax(1) for x in (student, teacher))
    doubt = 1 - p_t[0, labels[0]].item()
    gradient = value_and_gradient(student, teacher, labels, 1.0, doubt, temperature)[1]
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


@pytest.mark.parametrize('temperature', TEMPERATURES)
@pytest.mark.parametrize('term', [0, 1])
def test_gradcheck_of_each_term(logits, term, temperature):
    student, teacher, labels = logits(3, 4)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: dkd_terms(s, teacher, labels, temperature)[term], student)


def test_gradcheck(logits):
    student, teacher, labels = logits(3, 4)
    assert torch.autograd.gradcheck(lambda s: dkd_loss(s, teacher, labels), student.requires_grad_())


@given(triples(), st.floats(-50, 50), st.floats(-50, 50))
@settings(deadline=None, max_examples=25)
def test_only_differences_of_logits_count(triple, student_shift, teacher_shift):
    student, teacher, labels, temperature = triple
    shifted = dkd_terms(student + student_shift, teacher + teacher_shift, labels, temperature)
    torch.testing.assert_close(shifted, dkd_terms(student, teacher, labels, temperature), rtol=1e-8, atol=1e-10)


@given(triples(), st.floats(-50, 50), st.floats(-50, 50))
@settings(deadline=None, max_examples=25)
def test_nckd_does_not_see_the_target_logits(triple, student_shift, teacher_shift):
    student, teacher, labels, temperature = triple
    student_shifted = with_target_shifted(student, labels, student_shift)
    teacher_shifted = with_target_shifted(teacher, labels, teacher_shift)
    shifted = dkd_terms(student_shifted, teacher_shifted, labels, temperature)[1]
    expected = dkd_terms(student, teacher, labels, temperature)[1]
    torch.testing.assert_close(shifted, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_nckd_stays_accurate_in_float32_beside_a_dominant_target(logits, temperature):
    """What distinguishes the other classes survives a confident target: the point of the method."""
    student, teacher, labels = logits(4, 5, scale=1.0)
    expected = dkd_terms(student, teacher, labels, temperature)[1]
    student, teacher = (with_target_shifted(x, labels, 100.0).float() for x in (student, teacher))
    nckd = dkd_terms(student, teacher, labels, temperature)[1]
    torch.testing.assert_close(nckd, expected.float(), rtol=1e-4, atol=1e-6)


def test_nckd_has_no_gradient_on_the_target_logit(logits):
    student, teacher, labels = logits()
    gradient = value_and_gradient(student, teacher, labels, 0.0, 8.0)[1]
    assert gradient.gather(1, labels[:, None]).abs().max() <= 1e-14
    assert gradient.abs().sum() > 1e-2


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
    gradient = value_and_gradient(student, teacher, labels, 0.0, 8.0)[1]
    assert gradient.abs().max() <= 1e-14


def test_zero_and_flat_where_student_equals_teacher_up_to_a_shift(logits):
    _, teacher, labels = logits()
    shift = torch.tensor([[-7.0], [0.0], [0.5], [30.0]], dtype=torch.float64)
    for student, tolerance in [(teacher, 0), (teacher + shift, 1e-12)]:
        assert all(term.abs().max() <= tolerance for term in dkd_terms(student, teacher, labels, 4.0))
        value, gradient = value_and_gradient(student, teacher, labels)
        assert value.abs() <= 1e3 * tolerance
        assert gradient.abs().max() <= 1e-13


def test_order_of_classes_and_of_samples_is_free(logits):
    student, teacher, labels = logits(4, 6)
    value = dkd_loss(student, teacher, labels)
    classes, samples = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 0, 3, 1])
    permuted = dkd_loss(student[:, classes], teacher[:, classes], classes.argsort()[labels])
    torch.testing.assert_close(permuted, value)
    torch.testing.assert_close(dkd_loss(student[samples], teacher[samples], labels[samples]), value)


def test_mean_over_the_batch(logits):
    batch = logits(6, 3)
    parts = [dkd_loss(*(x[i : i + 1] for x in batch)) for i in range(6)]
    torch.testing.assert_close(dkd_loss(*batch), torch.stack(parts).mean())


def test_linear_in_alpha_and_beta(logits):
    student, teacher, labels = logits()
    tckd, nckd = (16 * term.mean() for term in dkd_terms(student, teacher, labels, 4.0))
    for alpha, beta in [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (2.0, 0.25)]:
        value = dkd_loss(student, teacher, labels, alpha, beta, 4.0)
        torch.testing.assert_close(value, alpha * tckd + beta * nckd)


def test_label_is_the_target_whatever_the_teacher_thinks(logits):
    student, teacher, _ = logits(1, 4)
    values = [dkd_loss(student, teacher, torch.tensor([y])).item() for y in range(4)]
    expected = [naive.dkd(student.tolist(), teacher.tolist(), [y], 1.0, 8.0, 4.0).real for y in range(4)]
    assert values == pytest.approx(expected, rel=1e-9)
    assert len({round(value, 4) for value in values}) == 4


def test_defaults_are_the_papers(logits):
    student, teacher, labels = logits()
    expected = dkd_loss(student, teacher, labels, alpha=1.0, beta=8.0, temperature=4.0)
    assert dkd_loss(student, teacher, labels) == expected
    assert DKDLoss()(student, teacher, labels) == expected


def test_class_weighs_the_function(logits):
    student, teacher, labels = logits()
    value = dkd_loss(student, teacher, labels, 0.5, 2.0, 1.0)
    for weight in (0.0, 0.9, 30.0):
        loss = DKDLoss(alpha=0.5, beta=2.0, temperature=1.0, loss_weight=weight)
        torch.testing.assert_close(loss(student, teacher, labels), weight * value)


def test_teacher_gets_no_gradient(logits):
    student, teacher, labels = logits()
    student.requires_grad_(), teacher.requires_grad_()
    dkd_loss(student, teacher, labels).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_saturated_logits_stay_finite(saturated, temperature):
    student, teacher = saturated
    labels = torch.zeros(len(student), dtype=torch.int64)
    terms = dkd_terms(student, teacher, labels, temperature)
    doubles = dkd_terms(student.double(), teacher.double(), labels, temperature)
    for term, double in zip(terms, doubles, strict=True):
        assert term.dtype == torch.float32
        assert term.isfinite().all()
        # 1e4 + ln 2 has three digits after the point in float32
        torch.testing.assert_close(term.double(), double, rtol=1e-3, atol=1e-4)
    value, gradient = value_and_gradient(student, teacher, labels, temperature=temperature)
    assert value.isfinite()
    assert gradient.isfinite().all()


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
    terms = dkd_terms(z_s, z_t, label, 1.0)
    expected = torch.tensor([tckd]).float(), torch.tensor([nckd]).float()
    torch.testing.assert_close(terms, expected, rtol=1e-6, atol=1e-6)
    gradient = value_and_gradient(z_s, z_t, label, 1.0, 1.0, 1.0)[1]
    torch.testing.assert_close(gradient, torch.tensor([slope]).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', LOW_PRECISION)
def test_autocast_computes_in_float32(saturated, dtype):
    student, teacher = saturated
    labels = torch.arange(len(student)) % 3
    expected = value_and_gradient(student, teacher, labels)
    terms = dkd_terms(student, teacher, labels, 4.0)
    with torch.autocast('cpu', dtype=dtype):
        result = value_and_gradient(student, teacher, labels)
        result_terms = dkd_terms(student, teacher, labels, 4.0)
    assert result[0].dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    torch.testing.assert_close(result_terms, terms, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', LOW_PRECISION)
def test_half_precision_logits_are_raised(saturated, dtype):
    student, teacher = (x.to(dtype) for x in saturated)
    labels = torch.arange(len(student)) % 3
    value, gradient = value_and_gradient(student, teacher, labels)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()
    expected, slope = value_and_gradient(student.float(), teacher.float(), labels)
    assert value == expected
    torch.testing.assert_close(gradient, slope.to(dtype))
    assert value_and_gradient(student, teacher.float(), labels)[0] == expected


@pytest.mark.parametrize(
    ('student', 'teacher'), [((4, 3), (4, 5)), ((4, 3), (2, 3)), ((4, 3), (1, 3)), ((4, 3, 2, 2), (4, 3, 2, 2))]
)
@pytest.mark.parametrize('function', [dkd_loss, dkd_terms])
def test_logits_of_other_shapes_are_refused(function, student, teacher):
    with pytest.raises(ValueError, match='expected two tensors of the same shape'):
        function(torch.zeros(student), torch.zeros(teacher), torch.zeros(4, dtype=torch.int64), temperature=4.0)


@pytest.mark.parametrize('shape', [(3,), (5,), (1,), (4, 1), ()])
def test_labels_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match='labels'):
        dkd_loss(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize('labels', [torch.full((4,), 0.5), torch.full((4, 3), 1 / 3)])
def test_soft_labels_are_refused(labels):
    with pytest.raises(TypeError, match='mixup'):
        dkd_loss(torch.zeros(4, 3), torch.zeros(4, 3), labels)


@pytest.mark.parametrize('label', [-1, 3, 255])
def test_labels_that_are_no_class_are_refused(label):
    with pytest.raises((ValueError, IndexError, RuntimeError), match=str(label)):
        dkd_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([0, label]))


@pytest.mark.parametrize(
    'dtype',
    [
        torch.int32,
        torch.uint8,
        torch.int16,
    ],
)
def test_any_integers_are_labels(logits, dtype):
    student, teacher, labels = logits()
    assert dkd_loss(student, teacher, labels.to(dtype)) == dkd_loss(student, teacher, labels)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match='class'):
        dkd_loss(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize('temperature', [0, -1.0, float('nan'), float('inf')])
def test_wrong_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match=f'temperature={temperature}'):
        DKDLoss(temperature=temperature)


@pytest.mark.parametrize('temperature', [0, -1.0, float('nan'), float('inf')])
@pytest.mark.parametrize('function', [dkd_loss, dkd_terms])
def test_functions_refuse_a_wrong_temperature(logits, function, temperature):
    with pytest.raises(ValueError, match=f'temperature={temperature}'):
        function(*logits(), temperature=temperature)


@pytest.mark.parametrize('name', ['alpha', 'beta', 'loss_weight'])
def test_negative_weights_are_refused(name):
    with pytest.raises(ValueError, match=f'{name}=-1'):
        DKDLoss(**{name: -1})


@pytest.mark.parametrize(
    'name',
    [
        'alpha',
        'beta',
        'loss_weight',
    ],
)
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused(name, value):
    with pytest.raises(ValueError, match=f'{name}={value}'):
        DKDLoss(**{name: value})
