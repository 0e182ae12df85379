"""Losses of detectors do as many operations for 8 images with 100 boxes as for 2 with one."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmkd_plugin.losses import BCKDLoss, CrossKDLoss, DenseKDLoss, FGDLoss, LDLoss, MGDLoss, PKDLoss, QFLKDLoss

from .test_bckd import grid_of
from .test_ld import GRID


class Counted(TorchDispatchMode):
    """Counts operations."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def operations(make: Any, images: int, boxes: int) -> int:
    draw = torch.Generator().manual_seed(0)
    loss = make()
    dense = bool(loss.dense_outputs)
    sides = 12 if 'distributions' in loss.dense_outputs else 4
    shapes = [(images, c, n, n) for c in (3, sides)[: len(loss.dense_outputs)] for n in (8, 4)]
    if not dense:
        shapes = [(images, 6, 8, 8)]
    maps: list[list[Tensor]] = [[torch.rand(shape, generator=draw) for shape in shapes] for _ in range(2)]
    corners = torch.rand(images, boxes, 2, 2, generator=draw).sort(2).values * 64
    needs = {
        'assignments': (torch.randint(0, 4, (images * 80,), generator=draw),),
        'padded_boxes': corners.flatten(2),
        'input_size': (64, 64),
        'image_sizes': torch.full((images, 2), 64),
    }
    if not dense:
        loss.build_connectors(shapes[0], shapes[0])
    points = [torch.rand(n * n, 2, generator=draw) * 64 for n in (8, 4)]
    loss.grid = grid_of(points) if isinstance(loss, (BCKDLoss, CrossKDLoss)) else GRID if dense else None
    for tap in maps[0]:
        tap.requires_grad_()
    with Counted() as counted:
        given = maps if dense else [side[0] for side in maps]
        loss(*given, **{need: needs[need] for need in loss.needs}).backward()
    return counted.count


@pytest.mark.parametrize(
    'make',
    [
        FGDLoss, MGDLoss, PKDLoss, DenseKDLoss, QFLKDLoss, lambda: LDLoss(valuable_weight=1.0), BCKDLoss, CrossKDLoss,
        lambda: CrossKDLoss(boxes='distributions'),
    ],
)  # fmt: skip
def test_operations_are_as_many_whatever_the_batch(make):
    assert operations(make, 8, 100) == operations(make, 2, 1)
