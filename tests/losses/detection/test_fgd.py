"""FGD: both parts from the formulas, the reference's hand values, and which image sizes scale the boxes."""

from typing import Any

import pytest
import torch

from mmkd_plugin.losses import FGDLoss, box_masks, fgd_attention, fgd_loss

from ..conftest import value_and_gradient
from ..naive_features import flat, gradient, normal
from . import naive_maps as naive

WEIGHTS: dict[str, Any] = {'alpha': 0.5, 'beta': 0.3, 'gamma': 0.2}
BOXES = torch.tensor([[[0.0, 0, 16, 16], [8, 8, 32, 24]], [[3.0, 5, 9, 30], [1, 1, 2, 2]]])
FRAME = (32, 36)


def built(student: Any, teacher: Any, **arguments: Any) -> Any:
    torch.manual_seed(0)
    loss = FGDLoss(**arguments)
    loss.build_connectors(student, teacher)
    return loss.double()


def test_focal_part_is_that_of_the_formula():
    student, teacher = normal((2, 3, 4, 5), (2, 3, 4, 5))
    masks = box_masks(BOXES.double(), FRAME, (4, 5))
    value, slope = value_and_gradient(fgd_loss, student, teacher, *masks, 0.5, 0.5, 0.3, 0.2)
    drawn = [naive.masks(boxes, FRAME, 4, 5) for boxes in BOXES.tolist()]

    def formula(values):
        foregrounds, backgrounds = zip(*drawn, strict=True)
        return naive.fgd(values, teacher.tolist(), foregrounds, backgrounds, temperature=0.5, **WEIGHTS)

    assert value.item() == pytest.approx(formula(student.tolist()).real, rel=1e-9)
    torch.testing.assert_close(slope, gradient(formula, student), rtol=1e-8, atol=1e-12)


def test_global_part_is_that_of_the_formula():
    student, teacher = normal((2, 6, 2, 3), (2, 6, 2, 3))
    loss = built((2, 6, 2, 3), (2, 6, 2, 3), alpha=0.0, beta=0.0, gamma=0.0, lam=0.7)
    for parameter in loss.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    sides = []
    for block in (loss.context_student, loss.context_teacher):
        first, norm, last = block.transform[0], block.transform[1], block.transform[3]
        weights = [(layer.weight.tolist(), layer.bias.tolist()) for layer in (first, last)]
        sides.append((block.attention.weight.flatten().tolist(), weights, (norm.weight.tolist(), norm.bias.tolist())))

    def formula(values):
        total = 0j
        for s, t in zip(values, teacher.tolist(), strict=True):
            added = naive.context(s, *sides[0]), naive.context(t, *sides[1])
            for p, q, a, b in zip(s, t, *added, strict=True):
                total += sum(((y + b - x - a) ** 2 for x, y in zip(flat(p), flat(q), strict=True)), start=0j)
        return 0.7 * total / len(values)

    value = loss(student.requires_grad_(), teacher, BOXES, FRAME, torch.tensor([FRAME] * 2))
    assert value.item() == pytest.approx(formula(student.tolist()).real, rel=1e-9)
    value.backward()
    torch.testing.assert_close(student.grad, gradient(formula, student.detach()), rtol=1e-8, atol=1e-12)


def test_hand_values_of_attention():
    teacher = torch.tensor([[[[1.0, 3.0]]]])
    positions, channels = fgd_attention(teacher, 0.5)
    torch.testing.assert_close(positions, torch.tensor([[[0.0359724, 1.9640276]]]))
    torch.testing.assert_close(channels, torch.ones(1, 1))
    nothing = torch.zeros(1, 1, 2)
    value = fgd_loss(torch.full_like(teacher, 2.0), teacher, nothing, nothing, gamma=1.0)
    assert value.item() == pytest.approx(1.9280552, abs=1e-6)


def test_hand_values_at_the_start():
    """F_t = 1, F_s = 3, two channels, 4x4, a box of 3x3 cells: L_fg = L_bg = 8, L_glo = 128."""
    teacher, student = torch.ones(1, 2, 4, 4), torch.full((1, 2, 4, 4), 3.0)
    boxes = torch.tensor([[[0.0, 0, 16, 16]]])
    masks = box_masks(boxes, (32, 32), (4, 4))
    assert fgd_loss(student, teacher, *masks, alpha=1, beta=0, gamma=0).item() == pytest.approx(8, rel=1e-6)
    assert fgd_loss(student, teacher, *masks, alpha=0, beta=1, gamma=0).item() == pytest.approx(8, rel=1e-6)
    assert fgd_loss(student, teacher, *masks, alpha=0, beta=0, gamma=1).item() == pytest.approx(0, abs=1e-6)
    loss = FGDLoss(alpha=0.0, beta=0.0, gamma=0.0, lam=1.0)
    loss.build_connectors(student.shape, teacher.shape)
    sizes = torch.tensor([[32, 32]])
    assert loss(student, teacher, boxes, (32, 32), sizes).item() == pytest.approx(128, rel=1e-6)
    assert FGDLoss(loss_weight=2.0)  # and a student that is a copy loses nothing
    assert loss(teacher, teacher, boxes, (32, 32), sizes).item() == 0


def test_whose_size_scales_the_boxes():
    student, teacher = normal((2, 3, 4, 5), (2, 3, 4, 5))
    own = torch.tensor([[32, 36], [20, 30]])
    for by_image_size, frame in ((False, FRAME), (True, own)):
        loss = built((2, 3, 4, 5), (2, 3, 4, 5), lam=0.0, by_image_size=by_image_size, **WEIGHTS)
        expected = fgd_loss(student, teacher, *box_masks(BOXES.double(), frame, (4, 5)), **WEIGHTS)
        torch.testing.assert_close(loss(student, teacher, BOXES.double(), FRAME, own), expected)
    assert not list(built((2, 3, 4, 5), (2, 3, 4, 5), lam=0.0).parameters())


def test_both_context_blocks_learn():
    student, teacher = normal((2, 8, 4, 5), (2, 8, 4, 5))
    loss = built((2, 8, 4, 5), (2, 8, 4, 5))
    loss(student, teacher, BOXES, FRAME, torch.tensor([FRAME] * 2)).backward()
    assert loss.context_student.transform[3].weight.grad.any()
    assert loss.context_teacher.transform[3].weight.grad.any()


def test_refusals():
    student, teacher, mask = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4)
    with pytest.raises(ValueError, match=r'masks \(2, 4, 4\) and \(2, 4\)'):
        fgd_loss(student, teacher, mask, mask[:, 0])
    with pytest.raises(ValueError, match='expected equal channels'):
        fgd_loss(student[:, :2], teacher, mask, mask)
