"""CWD: the formula, the reference's hand values, and what it does not see of a channel."""

from math import log
from typing import Any

import pytest
import torch

from mmkd_plugin.losses import CWDLoss, cwd_loss

from ..conftest import value_and_gradient
from ..naive_features import gradient, normal
from . import naive_maps as naive

SHAPES = [
    ((2, 3, 3, 2), (2, 3, 3, 2)),
    ((2, 2, 2, 3), (2, 2, 4, 6)),
    ((2, 2, 3, 5), (2, 2, 3, 4)),  # only the width differs
]


@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('temperature', [1.0, 4.0])
@pytest.mark.parametrize('shapes', SHAPES)
def test_value_and_gradient_are_those_of_the_formula(shapes, temperature, normalize):
    student, teacher = normal(*shapes)
    value, slope = value_and_gradient(cwd_loss, student, teacher, temperature, normalize)
    constants = teacher.tolist(), temperature, normalize
    assert value.item() == pytest.approx(naive.cwd(student.tolist(), *constants).real, rel=1e-9)
    torch.testing.assert_close(slope, gradient(lambda x: naive.cwd(x, *constants), student), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(('temperature', 'value'), [(1.0, 0.0566330), (2.0, 0.0591668), (4.0, 0.0598320)])
def test_hand_values(temperature, value):
    """t = [ln 2, 0] against [0, 0]; a second channel that agrees halves it."""
    teacher = torch.tensor([[[[log(2), 0.0]]]], dtype=torch.float64)
    student = torch.zeros_like(teacher)
    assert cwd_loss(student, teacher, temperature).item() == pytest.approx(value, abs=1e-7)
    two = torch.cat([student, teacher], 1), torch.cat([teacher, teacher], 1)
    assert cwd_loss(*two, temperature).item() == pytest.approx(value / 2, abs=1e-7)


def test_hand_value_of_rtmdets_recipe():
    student, teacher = (torch.tensor(x).view(1, 1, 2, 2) for x in ([0.0, 1, 2, 3], [0.0, 1, 2, 4]))
    assert cwd_loss(student, teacher, normalize=True).item() == pytest.approx(0.0170102, abs=1e-7)


def test_gradient_is_the_difference_of_the_distributions():
    student, teacher = normal((2, 3, 2, 2), (2, 3, 2, 2))
    _, slope = value_and_gradient(cwd_loss, student, teacher, 2.0)
    phi_s, phi_t = ((maps.flatten(2) / 2).softmax(2).view_as(maps) for maps in (student, teacher))
    torch.testing.assert_close(slope, 2.0 / 6 * (phi_s - phi_t))


def test_what_changes_nothing():
    student, teacher, constants = normal((2, 3, 2, 4), (2, 3, 2, 4), (1, 3, 1, 1))
    torch.testing.assert_close(cwd_loss(student + constants, teacher), cwd_loss(student, teacher))
    scaled = student * constants.abs() + constants
    torch.testing.assert_close(
        cwd_loss(scaled, teacher, 1.0, True), cwd_loss(student, teacher, 1.0, True), rtol=1e-3, atol=0
    )


def test_connector():
    torch.manual_seed(0)
    loss: Any = CWDLoss(loss_weight=2.0)
    loss.build_connectors((2, 3, 4, 4), (2, 5, 4, 4))
    student, teacher = (maps.float() for maps in normal((2, 3, 4, 4), (2, 5, 4, 4)))
    connected = torch.einsum('nchw,dc->ndhw', student, loss.connector.weight[:, :, 0, 0])
    torch.testing.assert_close(loss(student, teacher), 2 * cwd_loss(connected, teacher))
    assert [name for name, _ in loss.named_parameters()] == ['connector.weight']
    same = CWDLoss()
    same.build_connectors((2, 3, 4, 4), (2, 3, 8, 8))
    assert not list(same.parameters())


def test_refusals():
    with pytest.raises(ValueError, match='expected equal channels'):
        cwd_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4))
    with pytest.raises(ValueError, match=r'expected two maps \(N, C, H, W\)'):
        CWDLoss().build_connectors((2, 3), (2, 3, 4, 4))
