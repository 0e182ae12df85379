"""Masks of ground-truth boxes on a feature map, for all boxes of a batch at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

_BITS = 24  # of a word: as many as float32 holds exactly


@torch.no_grad()
def box_masks(boxes: Tensor, frame: Tensor | tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """FGD's masks of foreground and background.

    A box covers the cells from floor(x1) to ceil(x2), both included, and the same of y, in the map's cells. A covered
    cell has the largest 1 / (cells of the box) of the boxes that cover it; the others share 1 as background.

    No box is drawn: boxes are ordered by their weights, those of a row of cells and of a column are sets of bits, and
    the highest bit that both sets of a cell have in common names its box.

    Args:
        boxes: (N, B, 4), x1, y1, x2, y2 in pixels; rows that are none begin at infinity and end at minus infinity.
        frame: The height and width in pixels that the map stands for, of all images or (N, 2).
        size: H and W of the map.

    Returns:
        Foreground (N, H, W), 0 elsewhere; background (N, H, W), 0 where an image has none.
    """
    weights, rows, columns = _cells(boxes, frame, size)
    order = weights.argsort(1)
    weights = weights.gather(1, order)
    words = -(-weights.size(1) // _BITS)
    spare = words * _BITS - weights.size(1)
    of_rows, of_columns = (_bits(covered, order, words, spare) for covered in (rows, columns))
    common = of_rows[:, :, :, None] & of_columns[:, :, None, :]  # (N, words, H, W)
    highest = torch.frexp(common.float()).exponent  # the number of the highest bit, from 1; 0 without
    table = F.pad(F.pad(weights, (0, spare)).reshape(len(boxes), words, _BITS), (1, 0))
    found = table.gather(2, highest.flatten(2).long()) if words else weights.new_zeros(len(boxes), 1, size[0] * size[1])
    foreground = found.amax(1).view(-1, *size)
    outside = (foreground == 0).to(foreground.dtype)
    return foreground, outside / outside.sum((1, 2), keepdim=True).clamp_min(1)


def _cells(boxes: Tensor, frame: Tensor | tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Of each box its weight (N, B), and which rows (N, B, H) and columns (N, B, W) it covers."""
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    sides = frame.to(boxes.dtype).unsqueeze(2).unbind(1) if isinstance(frame, Tensor) else frame
    areas, covered = [], []
    for axis in (0, 1):  # y, x
        scale = size[axis] / sides[axis]
        low, high = (boxes[:, :, 1 - axis] * scale).floor(), (boxes[:, :, 3 - axis] * scale).ceil()
        cells = torch.arange(size[axis], device=boxes.device)
        covered.append((low[:, :, None] <= cells) & (cells <= high[:, :, None]))
        areas.append(high - low + 1)
    area = areas[0] * areas[1]
    return torch.where(area.isfinite(), 1 / area, 0), covered[0], covered[1]


def _bits(covered: Tensor, order: Tensor, words: int, spare: int) -> Tensor:
    """(N, B, cells) to the boxes of each cell as bits, (N, words, cells)."""
    covered = covered.gather(1, order[:, :, None].expand_as(covered))
    covered = F.pad(covered, (0, 0, 0, spare)).reshape(len(covered), words, _BITS, covered.size(2))
    values = 2 ** torch.arange(_BITS, dtype=torch.int32, device=covered.device)
    return (covered * values[:, None]).sum(2, dtype=torch.int32)
