"""ILOD: the formula, hand values, and which RoIs and columns count."""

import pytest
import torch

from mmkd_plugin.losses import ILODLoss, ilod_loss

R, NEW, OLD = 5, 4, 2


def sides(seed=0, new=NEW, old=OLD, shared=False):
    generator = torch.Generator().manual_seed(seed)
    widths = (new + 1, 4 if shared else 4 * new, old + 1, 4 if shared else 4 * old)
    return [2 * torch.randn(R, width, generator=generator, dtype=torch.float64) for width in widths]


def of_formula(scores, boxes, old_scores, old_boxes, share, background):
    """RoI by RoI, one number at a time."""
    exponentials = old_scores.exp()
    order = sorted(range(R), key=lambda r: (exponentials[r, -1] / exponentials[r].sum()).item())
    taken = order[: max(int(R * share), 1)]
    old, total = old_scores.shape[1] - 1, 0.0
    columns = [(c, c) for c in range(old)] + ([(scores.shape[1] - 1, old)] if background else [])
    for r in taken:
        u = [scores[r, own] for own, _ in columns]
        v = [old_scores[r, own] for _, own in columns]
        u, v = ([x - sum(xs) / len(xs) for x in xs] for xs in (u, v))
        total += sum((a - b) ** 2 for a, b in zip(u, v, strict=True)) / len(columns)
        width = old_boxes.shape[1]
        total += sum((boxes[r, k] - old_boxes[r, k]) ** 2 for k in range(width)) / (width // 4)
    return total / len(taken)


@pytest.mark.parametrize('background', [True, False])
@pytest.mark.parametrize('share', [0.1, 0.5, 1.0])
@pytest.mark.parametrize('shared', [True, False])
def test_value_and_gradient_are_those_of_the_formula(share, background, shared):
    given = [side.requires_grad_(number < 2) for number, side in enumerate(sides(shared=shared))]
    scores, boxes, old_scores, old_boxes = given
    value = ilod_loss(scores, boxes, old_scores, old_boxes, share, background)
    expected = of_formula(scores, boxes, old_scores, old_boxes, share, background)
    torch.testing.assert_close(value, expected)
    slopes = torch.autograd.grad(value, given[:2], retain_graph=True)
    torch.testing.assert_close(slopes, torch.autograd.grad(expected, given[:2]))
    loss = ILODLoss(share, 0.7, background)
    torch.testing.assert_close(loss(given[:2], given[2:]), 0.7 * value)


def test_hand_values_of_the_logits():
    """Reference, D15: [1, 2, 3] against [3, 4, 5] gives 0, against [1, 2, 6] gives 2, a mean over three classes."""
    boxes = torch.zeros(1, 12)
    old = torch.tensor([[1.0, 2.0, 3.0, 0.0]])
    for new, expected in (([3.0, 4.0, 5.0], 0.0), ([1.0, 2.0, 6.0], 2.0)):
        scores = torch.tensor([[*new, 9.0]])
        assert ilod_loss(scores, boxes, old, boxes, background=False).item() == pytest.approx(expected, abs=1e-6)
    # with the background, against [3, 4, 5, 2]: all moved by 2, and so 0
    assert ilod_loss(torch.tensor([[3.0, 4.0, 5.0, 2.0]]), boxes, old, boxes).item() == pytest.approx(0, abs=1e-6)
    # against [1, 2, 3, 4]: differences -1, -1, -1, 3 from the mean: 12 / 4
    assert ilod_loss(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), boxes, old, boxes).item() == pytest.approx(3, abs=1e-6)


def test_hand_value_of_the_boxes():
    """One of two classes is off by 1 in all four offsets: 4 / 2."""
    scores, boxes = torch.zeros(1, 3), torch.zeros(1, 8)
    moved = boxes.clone()
    moved[0, 4:] = 1
    assert ilod_loss(scores, moved, scores, boxes).item() == pytest.approx(2)


def test_a_copy_with_new_columns_has_no_slope():
    """New classes lie between the old ones and the background, which is last on both sides."""
    scores, boxes, old_scores, old_boxes = sides()
    scores = torch.cat([old_scores[:, :OLD], scores[:, : NEW - OLD], old_scores[:, -1:]], 1).requires_grad_()
    boxes = torch.cat([old_boxes, boxes[:, 4 * OLD :]], 1).requires_grad_()
    value = ilod_loss(scores, boxes, old_scores, old_boxes)
    assert value == 0
    assert not any(slope.any() for slope in torch.autograd.grad(value, [scores, boxes]))


def test_rois_that_the_older_detector_calls_background_do_not_count():
    scores, boxes, old_scores, old_boxes = sides()
    old_scores[0, -1] = 100
    changed = scores.clone()
    changed[0] += torch.arange(NEW + 1)
    given = boxes, old_scores, old_boxes
    assert ilod_loss(changed, *given, share=0.8) == ilod_loss(scores, *given, share=0.8)
    assert ilod_loss(changed, *given, share=1.0) != ilod_loss(scores, *given, share=1.0)


@pytest.mark.parametrize(
    ('number', 'width'),
    [(0, OLD), (1, 4 * OLD), (1, 4), (2, NEW + 2), (2, 1), (3, 4), (3, 4 * OLD + 1)],
)
def test_what_does_not_belong_together_is_refused(number, width):
    given = sides()
    given[number] = torch.zeros(R, width)
    with pytest.raises(ValueError, match=r'expected \(R, C \+ 1\), \(R, 4 C\) and'):
        ilod_loss(*given)
    with pytest.raises(ValueError, match='3 and 2 taps given'):
        ILODLoss()(given[:3], given[2:])


@pytest.mark.parametrize('share', [0, 1.5, -1])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match='share='):
        ILODLoss(share)
