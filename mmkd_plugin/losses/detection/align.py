"""Bringing a student's map to a teacher's channels and size."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..shapes import check_maps


def channel_connector(student: Sequence[int], teacher: Sequence[int], bias: bool) -> nn.Module:
    """A 1x1 convolution from the student's channels to the teacher's; nothing where they are equal.

    Args:
        student: Shape (N, C_s, H_s, W_s).
        teacher: Shape (N, C_t, H_t, W_t).
        bias: Whether the convolution has one.

    Raises:
        ValueError: If these are not two maps.
    """
    if len(student) != 4 or len(teacher) != 4:
        raise ValueError(f'student {tuple(student)} and teacher {tuple(teacher)} given, expected two maps (N, C, H, W)')
    return nn.Identity() if student[1] == teacher[1] else nn.Conv2d(student[1], teacher[1], 1, bias=bias)


def resize_like(maps: Tensor, other: Tensor) -> Tensor:
    """The maps at another map's height and width, bilinear with ``align_corners=False``; equal sizes stay as they are.

    Args:
        maps: (N, C, H, W).
        other: (N, C', H', W').

    Returns:
        (N, C, H', W').
    """
    if maps.shape[2:] == other.shape[2:]:
        return maps
    return F.interpolate(maps, other.shape[2:], mode='bilinear', align_corners=False)


def check_same_channels(student: Tensor, teacher: Tensor) -> None:
    """Check that two tensors are maps of the same images, with the same channels.

    Raises:
        ValueError: If they are not (N, C, H_s, W_s) and (N, C, H_t, W_t).
    """
    check_maps(student, teacher)
    if student.size(1) != teacher.size(1):
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} given, expected equal channels: '
            'in a config the loss makes a connector for that'
        )
