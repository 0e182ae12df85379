"""FGD's masks: drawn box after box, the reference's hand values, and images without boxes."""

from math import inf

import pytest
import torch

from mmkd_plugin.losses import box_masks

from . import naive_maps as naive


@pytest.mark.parametrize('count', [1, 7, 23, 24, 25, 100])
@pytest.mark.parametrize('size', [(1, 1), (7, 11), (25, 16)])
def test_as_drawn_one_after_the_other(count, size):
    generator = torch.Generator().manual_seed(count)
    frame = torch.tensor([[200, 128], [180, 100], [200, 90]])
    corners = torch.rand(3, count, 2, 2, generator=generator, dtype=torch.float64).sort(2).values
    corners = corners**3 * frame.flip(1)[:, None, None]  # small ones and large ones
    boxes = corners.flatten(2)
    boxes[1, count // 2 :] = torch.tensor([inf, inf, -inf, -inf])
    found = box_masks(boxes, frame, size)
    whole = box_masks(boxes, (200, 128), size), box_masks(boxes, torch.tensor([[200, 128]] * 3), size)
    torch.testing.assert_close(*whole, rtol=0, atol=0)
    for image in range(3):
        given = [box for box in boxes[image].tolist() if box[0] < inf]
        expected = naive.masks(given, tuple(frame[image].tolist()), *size)
        for mask, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(mask[image], torch.tensor(wanted, dtype=torch.float64), rtol=1e-14, atol=0)


def test_hand_values():
    boxes = torch.tensor([[[0.0, 0, 16, 16], [8, 8, 32, 24]]])
    foreground, background = box_masks(boxes, (32, 32), (4, 4))
    a, b = 1 / 9, 1 / 12
    torch.testing.assert_close(foreground[0], torch.tensor([[a, a, a, 0], [a, a, a, b], [a, a, a, b], [0, b, b, b]]))
    torch.testing.assert_close(
        background[0], torch.tensor([[0, 0, 0, 0.5], [0, 0, 0, 0], [0, 0, 0, 0], [0.5, 0, 0, 0]])
    )


def test_no_boxes_and_nothing_but_boxes():
    frame = (32, 32)
    for boxes in (torch.zeros(2, 0, 4), torch.tensor([inf, inf, -inf, -inf]).expand(2, 3, 4)):
        foreground, background = box_masks(boxes, frame, (4, 4))
        assert not foreground.any()
        assert torch.equal(background, torch.full((2, 4, 4), 1 / 16))
    foreground, background = box_masks(torch.tensor([[[0.0, 0, 32, 32]]]), frame, (4, 4))
    assert torch.equal(foreground, torch.full((1, 4, 4), 1 / 25))
    assert not background.any()
    foreground, background = box_masks(torch.zeros(0, 2, 4), frame, (4, 4))
    assert foreground.shape == background.shape == (0, 4, 4)
