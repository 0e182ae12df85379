"""Feeding a teacher what it was trained on, from the batch that the student got."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Renormalize(nn.Module):
    """From the student's normalised images to the teacher's, in one multiply-add.

    Undoes the student's mean, std and channel order and applies the teacher's; padded borders get
    the teacher's padding value again. The identity (same tensor) where both agree.

    Args:
        student: The student's data preprocessor (mmengine's, mmpretrain's or mmdet's).
        teacher: The teacher's; None for a teacher that has none and takes the student's batch.
        side: What the teacher is called in errors.

    Raises:
        ValueError: If only one of them normalises, if one pads to multiples that the other does
            not, or if they are of kinds whose normalisation cannot be read.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, student: nn.Module | None, teacher: nn.Module | None, side: str) -> None:
        super().__init__()
        self.identity = True
        self.flip = False
        self.pad_value = 0.0
        if student is None or teacher is None:
            return
        mean_s, std_s, flip_s = _normalization(student, side)
        mean_t, std_t, flip_t = _normalization(teacher, side)
        normalizes = [bool(getattr(p, '_enable_normalize', False)) for p in (student, teacher)]
        if normalizes[0] != normalizes[1]:
            raise ValueError(
                f"the {'student' if normalizes[0] else side}'s data_preprocessor normalises images and the other's "
                f'does not, so the {side} would see other values than it was trained on. Give both their mean and std '
                '(mean=[0], std=[1] says that raw pixels are meant); a teacher given as model=dict(...) without a '
                "data_preprocessor gets the student's"
            )
        self.flip = flip_s != flip_t
        if self.flip:  # bring the student's constants into the teacher's channel order
            mean_s, std_s = mean_s.flip(0), std_s.flip(0)
        self.register_buffer('scale', (std_s / std_t).float(), persistent=False)
        self.register_buffer('shift', ((mean_s - mean_t) / std_t).float(), persistent=False)
        same = bool((self.scale == 1).all() and (self.shift == 0).all())
        self.identity = same and not self.flip
        self.pad_value = float(getattr(teacher, 'pad_value', 0))
        divisors = [int(getattr(p, 'pad_size_divisor', 1)) for p in (student, teacher)]
        if divisors[0] % divisors[1]:
            raise ValueError(
                f'the {side} pads images to multiples of {divisors[1]}, the student to multiples '
                f'of {divisors[0]}: give the student data_preprocessor=dict(pad_size_divisor='
                f'{divisors[1]}, ...)'
            )

    def forward(self, images: Tensor, data_samples: Sequence[Any] | None = None) -> Tensor:
        """Re-normalise a batch.

        Args:
            images: (N, C, H, W), as the student's preprocessor made them.
            data_samples: Where given, ``img_shape`` tells each image's size before padding.

        Returns:
            (N, C, H, W) as the teacher's preprocessor would have made them.
        """
        if self.identity:
            return images
        if self.flip:
            images = images.flip(1)
        images = torch.addcmul(self.shift, images, self.scale)
        shapes = [getattr(s, 'img_shape', None) for s in data_samples or ()]
        height, width = images.shape[-2:]
        if any(s is not None and tuple(s[:2]) != (height, width) for s in shapes):
            sizes = torch.tensor([s[:2] if s else (height, width) for s in shapes])
            sizes = sizes.to(images.device, non_blocking=True)
            rows = torch.arange(height, device=images.device) < sizes[:, :1]
            columns = torch.arange(width, device=images.device) < sizes[:, 1:]
            inside = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
            images = images.masked_fill(~inside, self.pad_value)
        return images


def _normalization(preprocessor: nn.Module, side: str) -> tuple[Tensor, Tensor, bool]:
    """Mean (C, 1, 1), std (C, 1, 1), and whether channels are reversed on the way in."""
    flip = bool(getattr(preprocessor, 'to_rgb', False)) or bool(getattr(preprocessor, '_channel_conversion', False))
    if getattr(preprocessor, '_enable_normalize', False):
        return preprocessor.mean.double(), preprocessor.std.double(), flip  # type: ignore
    custom = not type(preprocessor).__module__.startswith(('mmengine.', 'mmpretrain.', 'mmdet.'))
    if custom and not hasattr(preprocessor, '_enable_normalize'):
        raise ValueError(
            f"the {side} and the student have data preprocessors, and {type(preprocessor).__name__}'s "
            'normalisation cannot be read: derive it from mmengine.model.ImgDataPreprocessor, or '
            'give both models the same normalisation and pass the teacher as a built module '
            'without a data_preprocessor'
        )
    return torch.zeros(1, 1, 1).double(), torch.ones(1, 1, 1).double(), flip
