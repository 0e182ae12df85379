"""MGD: the formula, the reference's hand values, and the mask, which the seed repeats."""

from typing import Any

import pytest
import torch
from torch import nn

from mmkd_plugin.losses import MGDLoss, mgd_loss

from ..naive_features import gradient, normal
from . import naive_maps as naive


def built(student: Any, teacher: Any, **arguments: Any) -> Any:
    torch.manual_seed(0)
    loss = MGDLoss(**arguments)
    loss.build_connectors(student, teacher)
    return loss.double()


def identity(**arguments: Any) -> Any:
    """G passes positive values as they are."""
    loss = built((1, 1, 2, 2), (1, 1, 2, 2), **arguments)
    for layer in (loss.generation[0], loss.generation[2]):
        nn.init.dirac_(layer.weight)
        nn.init.zeros_(layer.bias)
    return loss


STUDENT, TEACHER = (torch.tensor(x, dtype=torch.float64).view(1, 1, 2, 2) for x in ([1, 2, 3, 4], [1, 2, 3, 6]))


@pytest.mark.parametrize('shapes', [((2, 2, 3, 2), (2, 2, 3, 2)), ((2, 2, 2, 2), (2, 2, 3, 4))])
def test_value_and_gradient_are_those_of_the_formula(shapes):
    student, teacher = normal(*shapes)
    loss = built(*shapes, mask_ratio=0.0, loss_weight=0.7)
    layers = [(loss.generation[i].weight.tolist(), loss.generation[i].bias.tolist()) for i in (0, 2)]

    def formula(values):
        return 0.7 * naive.mgd(naive.resized(values, *shapes[1][2:]), teacher.tolist(), layers)

    value = loss(student.requires_grad_(), teacher)
    assert value.item() == pytest.approx(formula(student.tolist()).real, rel=1e-9)
    value.backward()
    torch.testing.assert_close(student.grad, gradient(formula, student.detach()), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(('mask', 'value'), [([1, 1, 1, 1], 4), ([1, 0, 1, 1], 8), ([0, 0, 0, 0], 50)])
def test_hand_values(monkeypatch, mask, value):
    loss = identity(loss_weight=0.5)
    monkeypatch.setattr(loss, 'draw', lambda student: torch.tensor(mask, dtype=torch.float64).view(1, 1, 2, 2))
    student = STUDENT.clone().requires_grad_()
    found = loss(student, TEACHER)
    assert found.item() == pytest.approx(0.5 * value)
    found.backward()
    assert student.grad is not None
    assert bool(student.grad.any()) == (value < 50)


@pytest.mark.parametrize(('mask', 'shape'), [('positions', (50, 1, 20, 20)), ('channels', (50, 400, 1, 1))])
def test_the_mask(mask, shape):
    student = torch.ones(50, 400 if mask == 'channels' else 3, 20, 20)
    torch.manual_seed(0)
    found = MGDLoss(mask_ratio=0.65, mask=mask).draw(student)
    assert found.shape == shape
    assert set(found.flatten().tolist()) == {0.0, 1.0}
    assert found.mean().item() == pytest.approx(0.35, abs=0.01)  # four deviations are 0.0135
    assert not torch.equal(found[0], found[1])


def test_repeats_by_the_seed_and_masks_in_training_only():
    student, teacher = normal((2, 3, 6, 6), (2, 3, 6, 6))
    loss = built((2, 3, 6, 6), (2, 3, 6, 6), mask_ratio=0.5)
    torch.manual_seed(1)
    first, second = loss(student, teacher), loss(student, teacher)
    torch.manual_seed(1)
    assert first == loss(student, teacher) != second
    loss.eval()
    state = torch.random.get_rng_state()
    torch.testing.assert_close(loss(student, teacher), 2e-5 * mgd_loss(loss.generation(student), teacher))
    assert torch.equal(state, torch.random.get_rng_state())


def test_refusals():
    with pytest.raises(ValueError, match=r'mask_ratio=1.0 given, expected less than 1'):
        MGDLoss(mask_ratio=1.0)
    with pytest.raises(ValueError, match="mask='pixels' given, expected 'positions' or 'channels'"):
        MGDLoss(mask='pixels')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='expected equal sizes'):
        mgd_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4))
