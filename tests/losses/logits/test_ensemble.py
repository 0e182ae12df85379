"""KD from the mean of several teachers: the formula, what one teacher and equal teachers give, and weights."""

import cmath

import pytest
import torch

from mmkd_plugin.losses import (
    ConfidentEnsembleKDLoss,
    EnsembleKDLoss,
    confidence_weights,
    ensemble_kd_loss,
    kd_loss,
)

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal

LABELS = torch.tensor([0, 3, 1])


def logits(count=3, n=3):
    student, *teachers = (2 * z for z in normal(*[(n, 4)] * (count + 1)))
    return student, teachers


def built(kind, teachers, **arguments):
    loss = kind(**arguments)
    loss.build_connectors((2, 4), dict.fromkeys(teachers, (2, 4)))
    return loss


def softmax(row, temperature):
    powers = [cmath.exp(z / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def by_rows(student, teachers, weights, temperature):
    """In python, row by row; weights by teacher and row."""
    total = 0
    for n, row in enumerate(student):
        of_teachers = [softmax(teacher[n], temperature) for teacher in teachers]
        for c, q in enumerate(softmax(row, temperature)):
            p = sum(w[n] * own[c] for w, own in zip(weights, of_teachers, strict=True))
            total += p * (cmath.log(p) - cmath.log(q))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
@pytest.mark.parametrize('by_sample', [False, True])
def test_value_and_gradient_are_those_of_the_formula(temperature, by_sample):
    student, teachers = logits(2)
    rows = [[0.25, 0.5, 0.0], [0.75, 0.5, 1.0]] if by_sample else [[0.25] * 3, [0.75] * 3]
    weights = torch.tensor(rows if by_sample else [0.25, 0.75]).double()
    value, gradient = value_and_gradient(ensemble_kd_loss, student, teachers, weights, temperature)
    constants = ([t.tolist() for t in teachers], rows, temperature)
    assert value.item() == pytest.approx(by_rows(student.tolist(), *constants).real, rel=1e-9)
    expected = naive.gradient(lambda x: by_rows(x, *constants), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)


def test_hand_values():
    # teachers (3/4, 1/4) and (1/4, 3/4), weights 1/2 and 1/2: their mean is what the student says
    student, sure = torch.zeros(1, 2).double(), torch.tensor([[3.0, 1.0]]).log().double()
    assert ensemble_kd_loss(student, [sure, -sure], temperature=1.0).item() == pytest.approx(0, abs=1e-12)
    # weights 5/6 and 1/6: the mean is (2/3, 1/3), and 2/3 ln 4/3 + 1/3 ln 2/3
    weights = torch.tensor([5 / 6, 1 / 6]).double()
    value = ensemble_kd_loss(student, [sure, -sure], weights, temperature=1.0)
    assert value.item() == pytest.approx(0.0566330, abs=1e-7)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_one_teacher_is_kd_exactly(temperature):
    student, (teacher,) = logits(1)
    expected = value_and_gradient(kd_loss, student, teacher, temperature)
    value = value_and_gradient(ensemble_kd_loss, student, [teacher], None, temperature)
    assert all(map(torch.equal, value, expected))
    for kind, needs in ((EnsembleKDLoss, ()), (ConfidentEnsembleKDLoss, (LABELS,))):
        loss = built(kind, ['a'], temperature=temperature)
        assert torch.equal(loss(student, {'a': teacher}, *needs), expected[0])


@pytest.mark.parametrize('kind', [EnsembleKDLoss, ConfidentEnsembleKDLoss])
def test_nothing_to_learn_from_teachers_that_say_what_the_student_says(kind):
    student, _ = logits()
    needs = () if kind is EnsembleKDLoss else (LABELS,)
    loss = built(kind, 'abc', weights={'a': 1, 'b': 5, 'c': 0})
    value, gradient = value_and_gradient(loss, student, dict.fromkeys('abc', student), *needs)
    assert abs(value.item()) < 1e-12
    assert gradient.abs().max() < 1e-12


def test_separate_losses_have_the_same_gradient_and_are_never_below():
    student, teachers = logits()
    weights = torch.tensor([0.2, 0.5, 0.3]).double()
    value, gradient = value_and_gradient(ensemble_kd_loss, student, teachers, weights)

    def apart(student):
        return sum(w * kd_loss(student, teacher) for w, teacher in zip(weights, teachers, strict=True))

    other, expected = value_and_gradient(apart, student)
    torch.testing.assert_close(gradient, expected)
    assert value < other


def test_weights():
    student, teachers = logits()
    named = dict(zip('abc', teachers, strict=True))
    given = built(EnsembleKDLoss, 'abc', weights={'c': 3, 'a': 1, 'b': 0}, temperature=2.0, loss_weight=0.5)
    expected = 0.5 * ensemble_kd_loss(student, [teachers[0], teachers[2]], torch.tensor([0.25, 0.75]), 2.0)
    torch.testing.assert_close(given(student, named), expected)
    torch.testing.assert_close(given(student, dict(reversed(named.items()))), given(student, named))
    uniform = built(EnsembleKDLoss, 'cab')
    torch.testing.assert_close(uniform(student, named), ensemble_kd_loss(student, teachers))


def test_confidence_is_the_probability_of_the_class():
    _, teachers = logits()
    prior = torch.tensor([0.2, 0.3, 0.5]).double()
    weights = confidence_weights(teachers, LABELS, prior)
    for n, label in enumerate(LABELS.tolist()):
        own = [w * softmax(t[n].tolist(), 1.0)[label].real for w, t in zip(prior.tolist(), teachers, strict=True)]
        assert weights[:, n].tolist() == pytest.approx([one / sum(own) for one in own])
    loss = built(ConfidentEnsembleKDLoss, 'abc', weights=dict(zip('abc', prior.tolist(), strict=True)))
    student, named = logits()[0], dict(zip('abc', teachers, strict=True))
    torch.testing.assert_close(loss(student, named, LABELS), ensemble_kd_loss(student, teachers, weights))


def test_a_teacher_that_is_surely_wrong_counts_nothing():
    student, (teacher, _) = logits(2)
    wrong = 1e4 * torch.eye(4, dtype=torch.float64)[(LABELS + 1) % 4]
    loss = built(ConfidentEnsembleKDLoss, ['a', 'b'])
    value, gradient = value_and_gradient(loss, student, {'a': teacher, 'b': wrong}, LABELS)
    expected, slope = value_and_gradient(kd_loss, student, teacher)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, slope)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'weights': 'learned'}, "weights='learned' given, expected 'uniform' or a number >= 0 for each"),
        ({'weights': 'accuracy'}, "weights='accuracy' given"),
        ({'weights': {'a': -1.0}}, 'a=-1.0 given, expected a finite number >= 0'),
        ({'temperature': 0}, 'temperature=0 given'),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        EnsembleKDLoss(**arguments)


def test_mistakes_that_show_with_teachers():
    with pytest.raises(ValueError, match=r"expected one for each of the teachers \['a', 'b'\]"):
        built(EnsembleKDLoss, 'ab', weights={'a': 1.0})
    student, teachers = logits()
    for call in (lambda: ensemble_kd_loss(student, []), lambda: confidence_weights([], LABELS)):
        with pytest.raises(ValueError, match='no teacher given, expected one or more'):
            call()
    with pytest.raises(ValueError, match=r'weights \(2,\) given, expected \(3,\), one for each teacher, or \(3, 3\)'):
        ensemble_kd_loss(student, teachers, torch.tensor([0.5, 0.5]))
