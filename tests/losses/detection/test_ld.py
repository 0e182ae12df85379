"""LD: the formula, the reference's hand values, the valuable region box by box, and what weighs a position."""

from math import inf, log
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmkd_plugin.losses import LDLoss, ld_loss, valuable_region

from ..naive_features import gradient, normal
from . import naive_heads as naive

SHAPES = [(2, 3, 4, 3), (2, 3, 2, 2), (2, 12, 4, 3), (2, 12, 2, 2)]  # scores, distributions of three bins
LABELS = torch.randint(0, 5, (32,), generator=torch.Generator().manual_seed(1)).clamp_max(3)
BOXES = torch.tensor([[[3.0, 4, 30, 28], [10, 2, 20, 40]], [[1, 1, 16, 22], [inf, inf, -inf, -inf]]]).double()


def anchors(sizes: Any, strides: Any = (8, 16)) -> list[Any]:
    """Squares of four strides around each place."""
    found = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        y, x = torch.meshgrid(torch.arange(height) * stride, torch.arange(width) * stride, indexing='ij')
        center = torch.stack([x, y], 2).view(-1, 2).double()
        found.append(torch.cat([center - 2 * stride, center + 2 * stride], 1))
    return found


GRID = SimpleNamespace(classes=3, anchors=lambda sizes, like: anchors(sizes))


def weights_of(student, teacher, positions, valuable, normalize):
    """Of each place, by their order."""
    scores, taught = (naive.places([level.tolist() for level in side[:2]], 1) for side in (student, teacher))
    largest = [max(naive.sigmoid(z).real for z in row) for row in scores]
    here = naive.chosen(positions, taught, LABELS.tolist(), 3, 0.6)
    positive = naive.chosen('positive', taught, LABELS.tolist(), 3, 0.6)
    found = [value * counts for value, counts in zip(largest, here, strict=True)]
    levels = anchors([(4, 3), (2, 2)])
    regions = [
        naive.valuable([level.tolist() for level in levels], [box for box in boxes if box[0] < inf])
        for boxes in BOXES.tolist()
    ]
    region = [regions[n][i] for part in (range(12), range(12, 16)) for n in (0, 1) for i in part]
    assert 0 < sum(value > 0 for value in region) < 32
    total = max(sum(v * p for v, p in zip(largest, positive, strict=True)), 1.0) if normalize else 1.0
    return [(a + valuable / 4 * b) / total for a, b in zip(found, region, strict=True)]


@pytest.mark.parametrize('positions', ['positive', 'confident', 'all'])
@pytest.mark.parametrize('valuable', [0.0, 2.0])
@pytest.mark.parametrize('normalize', [False, True])
def test_value_and_gradient_are_those_of_the_formula(positions, valuable, normalize):
    student, teacher = normal(*SHAPES), normal(*SHAPES, seed=1)
    loss = LDLoss(4.0, positions, 0.6, valuable, normalize, loss_weight=0.7)
    loss.grid = GRID
    weights = weights_of(student, teacher, positions, valuable, normalize)

    def formula(first):
        rows = naive.places([first, student[3].tolist()], 1), naive.places([t.tolist() for t in teacher[2:]], 1)
        return 0.7 * naive.ld(*rows, weights, 4.0)

    taps = [tap.clone().requires_grad_() for tap in student]
    value = loss(taps, teacher, (LABELS,), BOXES)
    assert value.item() == pytest.approx(formula(student[2].tolist()).real, rel=1e-9)
    value.backward()
    torch.testing.assert_close(taps[2].grad, gradient(formula, student[2]), rtol=1e-8, atol=1e-12)
    assert [tap.grad is None for tap in taps] == [True, True, False, False]


def test_hand_values():
    two = torch.tensor([10 * log(2), 0], dtype=torch.float64).expand(1, 4, 2)
    half = torch.tensor([0.5], dtype=torch.float64)
    assert ld_loss(torch.zeros_like(two), two, half / 2 * 4).item() == pytest.approx(2.8316506, abs=1e-6)
    assert 0.25 * ld_loss(torch.zeros_like(two), two, half).item() == pytest.approx(0.3539563, abs=1e-7)
    many = torch.zeros(1, 4, 17, dtype=torch.float64)
    peak = many.clone()
    peak[..., 3] = 10 * log(2)
    assert ld_loss(many, peak, 2 * half).item() == pytest.approx(0.1168114, abs=1e-7)
    assert ld_loss(peak + torch.randn(1, 4, 1), peak, half).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.openmmlab
def test_is_mmdets():
    """Whose epsilon is float32's."""
    from mmdet.models.losses import KnowledgeDistillationKLDivLoss

    student, teacher, weights = normal((6, 4, 17), (6, 4, 17), (6,))
    theirs = KnowledgeDistillationKLDivLoss(T=10, loss_weight=0.25)
    rows = [z.flatten(0, 1) for z in (student, teacher)]
    expected = theirs(*rows, weight=weights.abs()[:, None].expand(-1, 4).flatten(), avg_factor=4.0)
    assert 0.25 * ld_loss(student, teacher, weights.abs()).item() == pytest.approx(expected.item(), rel=1e-6)


def test_valuable_region_of_many_boxes():
    generator = torch.Generator().manual_seed(0)
    levels = anchors([(8, 9), (4, 5), (1, 2)], (8, 16, 64))
    corners = torch.rand(2, 12, 2, 2, generator=generator, dtype=torch.float64).sort(2).values * 64 + 1
    corners[:, :, 1] += 2
    boxes = corners.flatten(2)
    boxes[1, 5:] = torch.tensor([inf, inf, -inf, -inf])
    found = valuable_region(levels, boxes)
    for image in (0, 1):
        given = [box for box in boxes[image].tolist() if box[0] < inf]
        expected = naive.valuable([level.tolist() for level in levels], given)
        torch.testing.assert_close(found[image], torch.tensor(expected, dtype=torch.float64))
    assert valuable_region(levels, boxes[:, :0]).shape == (2, 94)
    assert not valuable_region(levels, boxes[1:, 5:]).any()


def test_without_positives_it_is_zero_with_a_graph():
    student, teacher = normal(*SHAPES), normal(*SHAPES, seed=1)
    taps = [tap.requires_grad_() for tap in student]
    value = LDLoss()(taps, teacher, (torch.full((32,), 3),), BOXES)
    assert value == 0
    value.backward()
    assert not taps[2].grad.any()


def test_refusals():
    student = normal(*SHAPES)
    with pytest.raises(ValueError, match='nobody told the anchors'):
        LDLoss(valuable_weight=1.0)(student, student, (LABELS,), BOXES)
    with pytest.raises(ValueError, match='expected one and four distributions'):
        LDLoss()([torch.zeros(2, 4, 2, 2)] * 2, [torch.zeros(2, 4, 2, 2)] * 2, (LABELS[:16],), BOXES)
    with pytest.raises(ValueError, match=r'expected \(P, 4, bins\) twice'):
        ld_loss(torch.zeros(2, 4, 3), torch.zeros(2, 4, 5), torch.zeros(2))
    with pytest.raises(ValueError, match='normalize=1 given'):
        LDLoss(normalize=1)  # type: ignore[arg-type]
