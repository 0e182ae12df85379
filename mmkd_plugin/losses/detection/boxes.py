"""Boxes of dense heads: gathering and decoding them, and their generalised IoU."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..base import full_precision


@full_precision
def giou_loss(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    r"""Generalised IoU between the boxes of two detectors, as a loss, weighted and summed.

    H. Rezatofighi et al., CVPR 2019, arXiv 1902.09630: ``sum w * (1 - GIoU)``, with
    ``GIoU = IoU - (hull - union) / hull``, hull being the smallest box around both. As mmdet's, areas count as at least
    1e-6, so that boxes of a thousandth of a pixel are far from themselves, without a gradient.

    Args:
        student: (P, 4), x1, y1, x2, y2 in pixels.
        teacher: (P, 4), taken as constant.
        weights: (P,), taken as constant.

    Returns:
        Scalar, dimensionless: a sum, which the caller divides; 0 without boxes.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
        >>> round(giou_loss(a, b, torch.ones(1)).item(), 6)
        0.666667
    """
    if student.ndim != 2 or student.shape != teacher.shape or weights.shape != student.shape[:1]:
        raise ValueError(
            f'student {tuple(student.shape)}, teacher {tuple(teacher.shape)} and weights {tuple(weights.shape)} given, '
            'expected (P, 4) twice and (P,)'
        )
    teacher = teacher.detach()
    both = torch.max(student[:, :2], teacher[:, :2]), torch.min(student[:, 2:], teacher[:, 2:])
    around = torch.min(student[:, :2], teacher[:, :2]), torch.max(student[:, 2:], teacher[:, 2:])
    overlap = (both[1] - both[0]).clamp_min(0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1) for boxes in (student, teacher)]
    union = (areas[0] + areas[1] - overlap).clamp_min(1e-6)
    hull = (around[1] - around[0]).prod(1).clamp_min(1e-6)
    return (weights.detach() * (1 - overlap / union + (hull - union) / hull)).sum()


def rows_of(levels: Sequence[Tensor], priors: int, chosen: Sequence[Tensor] | None = None) -> Tensor:
    """What a head puts out for a box, place by place.

    Args:
        levels: Of each, (N, A*D, H, W).
        priors: A.
        chosen: Of each level, (N, A, H, W) bool; None is all.

    Returns:
        (P, D): level by level, then by image, row, column and anchor.
    """
    rows = []
    for number, level in enumerate(levels):
        n, channels, height, width = level.shape
        row = level.permute(0, 2, 3, 1).reshape(n, height, width, priors, channels // priors)
        rows.append(row[chosen[number].permute(0, 2, 3, 1)] if chosen else row.flatten(0, 3))
    return torch.cat(rows)


def decoded(
    grid: Any, sides: Sequence[Sequence[Tensor]], priors: int, chosen: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """The boxes of several networks on one grid.

    Args:
        grid: ``DenseGrid`` of their heads.
        sides: Of each network, of each level, (N, A*D, H, W).
        priors: A.
        chosen: Of each level, (N, A, H, W) bool; None is all.

    Returns:
        Of each network, (P, 4) in pixels, in the order of :func:`rows_of`.

    Raises:
        ValueError: If nobody told the grid, or the maps do not hold the numbers of boxes.
    """
    if grid is None:
        raise ValueError('boxes are compared, and nobody told how to read them: set loss.grid to a DenseGrid')
    levels = sides[0]
    expected = priors * 4 * (grid.bins or 1)
    if any(level.size(1) != expected for level in levels):
        raise ValueError(
            f'maps {[tuple(level.shape) for level in levels]} given for boxes, expected {expected} channels: '
            f'{priors} anchors of a place with 4 sides' + (f' of {grid.bins} bins' if grid.bins else '')
        )
    n = len(levels[0])
    places = grid.places([(level.size(2), level.size(3)) for level in levels], levels[0])
    maps = [
        place.view(1, *level.shape[2:], priors, -1).permute(0, 3, 4, 1, 2).flatten(1, 2).expand(n, -1, -1, -1)
        for place, level in zip(places, levels, strict=True)
    ]
    strides = [
        level.new_full((1, 1, 1, 1), stride[0]).expand(n, priors, *level.shape[2:])
        for level, stride in zip(levels, grid.strides, strict=True)
    ]
    where, sizes = rows_of(maps, priors, chosen), rows_of(strides, priors, chosen)[:, 0]
    return [grid.decode(rows_of(side, priors, chosen), where, sizes) for side in sides]
