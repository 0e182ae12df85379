"""CrossKD of tensors: scores, boxes and their weights, position by position, and the reference's hand values."""

import cmath
from types import SimpleNamespace

import pytest
import torch

from mmkd_plugin.losses import CrossKDLoss, giou_loss
from mmkd_plugin.networks import DenseGrid

from ..naive_features import gradient, normal
from . import naive_heads as naive

SHAPES = [(2, 3, 4, 3), (2, 3, 2, 2), (2, 12, 4, 3), (2, 12, 2, 2)]  # scores, distributions of three bins
LABELS = torch.randint(0, 5, (32,), generator=torch.Generator().manual_seed(1)).clamp_max(3)


def weights_of(teacher, positions):
    taught = naive.places([level.tolist() for level in teacher[:2]], 1)
    counted = naive.chosen(positions, taught, LABELS.tolist(), 3, 0.6)
    return [max(naive.sigmoid(z).real for z in row) * here for row, here in zip(taught, counted, strict=True)]


@pytest.mark.parametrize('positions', ['positive', 'confident', 'all'])
def test_value_and_gradient_are_those_of_the_formula(positions):
    student, teacher = normal(*SHAPES), normal(*SHAPES, seed=1)
    loss = CrossKDLoss(2, 'distributions', 1.5, 2.0, positions, 0.6, box_weight=3.0, loss_weight=0.7)
    weights = weights_of(teacher, positions)
    levels = [level.tolist() for level in student]
    rows_t = [naive.places([level.tolist() for level in side], 1) for side in (teacher[:2], teacher[2:])]

    def formula(scores, sides):
        rows = [naive.places([first, second], 1) for first, second in ((scores, levels[1]), (sides, levels[3]))]
        kd = naive.scores(rows[0], rows_t[0], LABELS.tolist(), ('qfl', 1.5), 'all', 'positives', 0.6)
        boxes = naive.ld(rows[1], rows_t[1], weights, 2.0) * 3 / max(sum(weights), 1)  # a sum over three bins
        return 0.7 * (kd + 3 * boxes)

    taps = [tap.clone().requires_grad_() for tap in student]
    value = loss(taps, teacher, (LABELS,))
    assert value.item() == pytest.approx(formula(levels[0], levels[2]).real, rel=1e-9)
    value.backward()
    torch.testing.assert_close(
        taps[0].grad, gradient(lambda x: formula(x, levels[2]), student[0]), rtol=1e-8, atol=1e-12
    )
    torch.testing.assert_close(
        taps[2].grad, gradient(lambda x: formula(levels[0], x), student[2]), rtol=1e-8, atol=1e-12
    )


def naive_giou(a, b):
    """Of two boxes, number by number."""
    across = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - across
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return across / union - (hull - union) / hull


def test_giou():
    corners = torch.rand(2, 20, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20
    student, teacher = torch.cat([corners[:, :, 0], corners[:, :, 0] + corners[:, :, 1] + 0.1], 2)
    weights = torch.rand(20, dtype=torch.float64)
    expected = sum(
        w * (1 - naive_giou(a, b)) for w, a, b in zip(weights.tolist(), student.tolist(), teacher.tolist(), strict=True)
    )
    assert giou_loss(student, teacher, weights).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda s: giou_loss(s, teacher, weights), student.requires_grad_())
    assert giou_loss(teacher, teacher, weights).item() == pytest.approx(0, abs=1e-12)
    assert giou_loss(teacher[:0], teacher[:0], weights[:0]) == 0


def test_hand_values():
    """Boxes (0,0,2,2) and (1,0,3,2): 1 - GIoU is 2/3."""
    student, teacher = torch.tensor([[0.0, 0, 2, 2]]).double(), torch.tensor([[1.0, 0, 3, 2]]).double()
    assert giou_loss(student, teacher, torch.ones(1)).item() == pytest.approx(2 / 3, abs=1e-7)


class Points:
    """mmdet's coder of distances."""

    def decode(self, points, distances):
        return torch.cat([points - distances[:, :2], points + distances[:, 2:]], 1)


@pytest.mark.parametrize('form', ['distances', 'bins'])
def test_boxes_are_read_as_the_head_puts_them_out(form):
    bins = 3 if form == 'bins' else 0
    strides = ((8.0, 8.0), (16.0, 16.0))
    points = [
        torch.tensor([[8.0 * x, 8.0 * y] for y in range(4) for x in range(3)]).double(),
        torch.tensor([[16.0 * x, 16.0 * y] for y in range(2) for x in range(2)]).double(),
    ]
    generator = SimpleNamespace(grid_priors=lambda sizes, dtype, device: points)
    shapes = SHAPES if bins else [*SHAPES[:2], (2, 4, 4, 3), (2, 4, 2, 2)]
    student, teacher = normal(*shapes), normal(*shapes, seed=1)
    if not bins:
        student[2:], teacher[2:] = ([level.exp() * 9 for level in side[2:]] for side in (student, teacher))
    loss = CrossKDLoss(boxes='giou', beta=2.0)
    loss.grid = DenseGrid('head', 3, 1, strides, generator, bins, form, Points())
    boxes = []
    for side in (student[2:], teacher[2:]):
        rows, found = naive.places([level.tolist() for level in side], 1), []
        where = [(p, s[0]) for level, s in zip(points, strides, strict=True) for p in level.tolist() * 2]
        for row, ((x, y), stride) in zip(rows, where, strict=True):
            numbers = [z.real for z in row] if not bins else []
            for i in range(4 if bins else 0):
                powers = [cmath.exp(z).real for z in row[i * bins : i * bins + bins]]
                numbers.append(stride * (powers[1] + 2 * powers[2]) / sum(powers))
            found.append((x - numbers[0], y - numbers[1], x + numbers[2], y + numbers[3]))
        boxes.append(found)
    weights = weights_of(teacher, 'positive')
    expected = sum(w * (1 - naive_giou(a, b)) for w, a, b in zip(weights, *boxes, strict=True)) / max(sum(weights), 1)
    scores = CrossKDLoss(boxes='none', beta=2.0)(student[:2], teacher[:2], (LABELS,))
    assert (loss(student, teacher, (LABELS,)) - scores).item() == pytest.approx(expected, rel=1e-9)


def test_without_positives_boxes_are_zero_with_a_graph():
    taps = [tap.requires_grad_() for tap in normal(*SHAPES)]
    value = CrossKDLoss(boxes='distributions')(taps, normal(*SHAPES, seed=1), (torch.full((32,), 3),))
    value.backward()
    assert taps[0].grad.any()
    assert not taps[2].grad.any()


def test_refusals():
    student = normal(*SHAPES)
    with pytest.raises(ValueError, match='nobody told how to read them'):
        CrossKDLoss()(student, student, (LABELS,))
    loss = CrossKDLoss()
    loss.grid = DenseGrid('head', 3, 1, ((8.0, 8.0), (16.0, 16.0)), None, 0, 'distances', Points())
    with pytest.raises(ValueError, match=r'given for boxes, expected 4 channels: 1 anchors of a place with 4 sides'):
        loss(student, student, (LABELS,))
    with pytest.raises(ValueError, match='expected one and four distributions'):
        CrossKDLoss(boxes='distributions')([torch.zeros(2, 4, 2, 2)] * 2, [torch.zeros(2, 4, 2, 2)] * 2, (LABELS[:16],))
    with pytest.raises(ValueError, match=r'expected \(P, 4\) twice'):
        giou_loss(torch.zeros(2, 4), torch.zeros(3, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="boxes='iou' given"):
        CrossKDLoss(boxes='iou')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='cut=-1 given'):
        CrossKDLoss(cut=-1)
