"""PKD: the formula, the reference's hand values, correlations, and dead channels."""

from typing import Any

import pytest
import torch

from mmkd_plugin.losses import PKDLoss, pkd_loss

from ..conftest import value_and_gradient
from ..naive_features import gradient, normal
from . import naive_maps as naive

SHAPES = [((2, 3, 3, 2), (2, 3, 3, 2)), ((2, 2, 2, 3), (2, 2, 4, 6)), ((2, 2, 3, 5), (2, 2, 3, 4))]


@pytest.mark.parametrize('resize', ['student', 'teacher'])
@pytest.mark.parametrize('shapes', SHAPES)
def test_value_and_gradient_are_those_of_the_formula(shapes, resize):
    student, teacher = normal(*shapes)
    value, slope = value_and_gradient(pkd_loss, student, teacher, resize)
    assert value.item() == pytest.approx(naive.pkd(student.tolist(), teacher.tolist(), resize).real, rel=1e-9)
    expected = gradient(lambda x: naive.pkd(x, teacher.tolist(), resize), student)
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-12)


def maps(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 2, 2)


def test_hand_values():
    teacher = maps(0, 1, 2, 4)
    assert pkd_loss(maps(0, 1, 2, 3), teacher).item() == pytest.approx(0.0129693, abs=1e-6)
    assert pkd_loss(maps(5, 5, 5, 5), teacher).item() == pytest.approx(0.3749996, abs=1e-6)
    assert pkd_loss(-teacher, teacher).item() == pytest.approx(1.5, abs=1e-5)
    assert pkd_loss(3 * teacher + 7, teacher).item() == pytest.approx(0, abs=1e-10)


def test_is_one_less_the_correlation():
    student, teacher = normal((2, 4, 3, 5), (2, 4, 3, 5))
    rows = [x.transpose(0, 1).flatten(1) for x in (student, teacher)]
    correlations = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*rows, strict=True)])
    assert pkd_loss(student, teacher).item() == pytest.approx(29 / 30 * (1 - correlations).mean().item(), rel=1e-5)


def test_far_from_zero_float32_is_as_good():
    """Where moments would lose it: a mean of 50 with a deviation of 0.1."""
    student, teacher = (50 + 0.1 * x for x in normal((2, 3, 8, 8), (2, 3, 8, 8)))
    rounded = student.float(), teacher.float()
    expected = pkd_loss(*(x.double() for x in rounded)).item()
    assert pkd_loss(*rounded).item() == pytest.approx(expected, rel=1e-4)


def test_dead_channels_get_no_gradient():
    student, teacher = normal((2, 2, 3, 3), (2, 2, 3, 3))
    student[:, 1] = 1e-7 * student[:, 1] + 3
    value, slope = value_and_gradient(pkd_loss, student, teacher)
    assert (slope[:, 1] == 0).all()
    assert (slope[:, 0] != 0).all()
    alone = pkd_loss(student[:, :1], teacher[:, :1])
    assert value.item() == pytest.approx((alone.item() + 17 / 36) / 2, rel=1e-5)


def test_connector():
    torch.manual_seed(0)
    loss: Any = PKDLoss(loss_weight=2.0)
    loss.build_connectors((2, 3, 4, 4), (2, 5, 4, 4))
    student, teacher = (x.float() for x in normal((2, 3, 4, 4), (2, 5, 4, 4)))
    connected = torch.einsum('nchw,dc->ndhw', student, loss.connector.weight[:, :, 0, 0])
    torch.testing.assert_close(loss(student, teacher), 2 * pkd_loss(connected, teacher))


def test_refusals():
    with pytest.raises(ValueError, match="resize='both' given, expected 'student' or 'teacher'"):
        PKDLoss(resize='both')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='expected equal channels'):
        pkd_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4))
