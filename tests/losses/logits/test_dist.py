"""DIST: the formula, hand values, what a correlation does not see, and rows or columns that do not vary."""

import pytest
import torch
from torch import Tensor

from mmkd_plugin.losses import DISTLoss, dist_loss

from .. import naive
from ..conftest import value_and_gradient

SIZES = [(2, 3), (3, 5), (4, 2), (6, 11)]
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]
Y_S = [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]
Y_T = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]


def log(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


@pytest.mark.parametrize('temperature', TEMPERATURES)
@pytest.mark.parametrize(('n', 'classes'), SIZES)
def test_value_and_gradient_are_those_of_the_formula(logits, n, classes, temperature):
    student, teacher, _ = logits(n, classes, scale=1.0)
    constants = (teacher.tolist(), 0.7, 3.0, temperature)
    value, gradient = value_and_gradient(dist_loss, student, teacher, 0.7, 3.0, temperature)
    assert value.item() == pytest.approx(naive.dist(student.tolist(), *constants).real, rel=1e-9)
    expected = naive.gradient(lambda x: naive.dist(x, *constants), student.tolist())
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-10)
    weighed = DISTLoss(0.7, 3.0, temperature, loss_weight=0.9)(student, teacher)
    torch.testing.assert_close(weighed, 0.9 * value)


@pytest.mark.parametrize(
    ('rows', 'inter', 'intra'),
    [
        # rho of the rows: 0.9843241, 0.9971765, -1; of the columns: 0.8485553, 0.8660254, -0.1147079
        (3, 0.6728331, 0.4667092),
        # two samples make every column 1 or -1
        (2, 0.0092497, 0),
    ],
)
@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_hand_values(rows, inter, intra, temperature):
    student, teacher = (temperature * log(y[:rows]) for y in (Y_S, Y_T))
    for beta, gamma in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0)):
        value = dist_loss(student, teacher, beta, gamma, temperature)
        assert value.item() == pytest.approx(temperature**2 * (beta * inter + gamma * intra), abs=1e-5)


def test_the_papers_weights_are_those_of_the_code(logits):
    student, teacher, _ = logits(8, 10)
    torch.testing.assert_close(DISTLoss()(student, teacher), dist_loss(student, teacher, beta=2.0, gamma=2.0))


@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_shifts_of_a_sample_and_the_order_of_classes_and_samples_are_free(logits, temperature):
    student, teacher, _ = logits(4, 6)
    value = dist_loss(student, teacher, 1.0, 2.0, temperature)
    shift = torch.tensor([[-7.0], [0.0], [0.5], [30.0]], dtype=torch.float64)
    torch.testing.assert_close(dist_loss(student + shift, teacher - shift, 1.0, 2.0, temperature), value)
    for order in (torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 0, 3, 1])):
        where = (slice(None), order) if len(order) == 6 else order
        torch.testing.assert_close(dist_loss(student[where], teacher[where], 1.0, 2.0, temperature), value)


def test_a_students_prediction_may_be_flatter_than_the_teachers():
    """Half of the teacher's, half uniform: rows and columns are correlated fully, where KL divergence is not 0."""
    student, teacher = log([[0.5 * p + 0.5 / 3 for p in row] for row in Y_T]), log(Y_T)
    assert dist_loss(student, teacher).abs() < 1e-12


@pytest.mark.parametrize('rows', [1, 4])
def test_equal_predictions_of_all_samples_are_correlated_with_nothing(logits, rows):
    """Nor is a batch of one: a constant, and no gradient through rounding."""
    student, teacher = (x[:1].float().expand(rows, -1) for x in logits(1, 7)[:2])
    for other in (teacher, logits(rows, 7)[1].float()):
        value, gradient = value_and_gradient(dist_loss, student, other, 0.0, 1.0)
        assert value == 1
        assert gradient.abs().max() == 0


@pytest.mark.parametrize('level', [0.0, 0.1, 1234.567])
@pytest.mark.parametrize('classes', [2, 5, 100])
def test_a_uniform_row_is_correlated_with_nothing(logits, classes, level):
    """Whatever its level is, in float32: rounding would be a direction."""
    _, teacher, _ = logits(4, classes)
    student = torch.full((4, classes), level)
    value, gradient = value_and_gradient(dist_loss, student, teacher.float())
    assert value == pytest.approx(2)
    assert gradient.abs().max() == 0


def test_almost_uniform_rows_keep_their_digits(logits):
    """1000 classes at T = 20: probabilities differ in their fourth digit. float32 against float64."""
    student, teacher = (0.02 * x for x in logits(16, 1000)[:2])
    value, gradient = value_and_gradient(dist_loss, student, teacher, 1.0, 1.0, 20.0)
    single, slope = value_and_gradient(dist_loss, student.float(), teacher.float(), 1.0, 1.0, 20.0)
    assert single.item() == pytest.approx(value.item(), rel=1e-5)
    torch.testing.assert_close(slope.double(), gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())


def test_classes_that_nobody_predicts_count_as_much_as_others(logits):
    """Half of the columns vary too little for the least length: each adds 1, without a steep slope."""
    student, teacher = (torch.cat([x, x.new_full((8, 5), -60.0)], 1) for x in logits(8, 5)[:2])
    value, gradient = value_and_gradient(dist_loss, student, teacher, 0.0, 1.0)
    known = dist_loss(student[:, :5], teacher[:, :5], 0.0, 1.0)
    torch.testing.assert_close(value, (known + 1) / 2)
    assert gradient[:, 5:].abs().max() < 1e-12


def test_two_classes_are_signs(logits):
    student, teacher, _ = logits(16, 2)
    value, gradient = value_and_gradient(dist_loss, student, teacher, 1.0, 0.0)
    agree = ((student.diff() > 0) == (teacher.diff() > 0)).double()
    torch.testing.assert_close(value, 2 * (1 - agree.mean()))
    assert gradient.abs().max() < 1e-12


def test_what_is_refused(logits):
    student, teacher, _ = logits()
    for temperature in (0, -1.0, float('nan'), float('inf')):
        for call in (
            lambda t=temperature: DISTLoss(temperature=t),
            lambda t=temperature: dist_loss(student, teacher, 1, 1, t),
        ):
            with pytest.raises(ValueError, match=f'temperature={temperature}'):
                call()
    with pytest.raises(ValueError, match=r'\(4, 1\) given, expected at least two classes'):
        dist_loss(student[:, :1], teacher[:, :1])
