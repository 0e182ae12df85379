"""ReviewKD: knowledge review (Chen et al.)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...options import check_whole
from ..base import DistillLoss, full_precision
from ..norms import ConnectorNorm2d

_MAX_MID_CHANNELS = 512


@full_precision
def hcl_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""HCL, the hierarchical context loss: squared differences of two maps at several scales.

    P. Chen, S. Liu, H. Zhao, J. Jia, "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv
    2104.09044, section 3.4, with the weights of the authors' code:
    ``[MSE(s, t) + sum_k w_k MSE(pool_l(s), pool_l(t))] / (1 + sum_k w_k)`` over l = 4, 2, 1, where
    levels not smaller than the map's height are left out and w is 1/2, 1/4, 1/8 for those used.

    Args:
        student: (N, C, H, W).
        teacher: (N, C, H, W), taken as constant.

    Returns:
        Scalar, mean over the batch and all elements; 0 for an empty batch.

    Raises:
        ValueError: If these are not two maps of equal shape.

    Example:
        >>> import torch
        >>> hcl_loss(torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.5)).item()
        0.25
    """
    if student.ndim != 4 or student.shape != teacher.shape:
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} given, expected two maps '
            '(N, C, H, W) of equal shape'
        )
    if not student.numel():
        return student.sum()  # 0, with a graph
    teacher = teacher.detach()
    levels = [level for level in (4, 2, 1) if level < student.size(2)]
    value, weight, total = F.mse_loss(student, teacher), 1.0, 1.0
    difference = student - teacher  # pooling is linear, so this is pooled once instead of both maps
    for level in levels:
        weight /= 2
        total += weight
        height, width = difference.shape[2:]
        if height % level or width % level:
            pooled = F.adaptive_avg_pool2d(difference, level)
        else:  # means of equal parts have the mean of the whole: the next level may be pooled from this one
            pooled = difference = F.avg_pool2d(difference, (height // level, width // level))
        value = value + weight * pooled.square().mean()
    return value / total if levels else value


class ABF(nn.Module):
    """Attention-based fusion of one stage with what the deeper stages passed on.

    Args:
        in_channels: Of the student's map.
        mid_channels: In between, and of what is passed on.
        out_channels: Of the teacher's map.
        fuses: False for the deepest stage, which has nothing to fuse with.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, fuses: bool) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Conv2d(in_channels, mid_channels, 1, bias=False), ConnectorNorm2d(mid_channels))
        self.gate = nn.Conv2d(2 * mid_channels, 2, 1) if fuses else None
        self.out = nn.Sequential(
            nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=False), ConnectorNorm2d(out_channels)
        )
        for conv in (self.project[0], self.out[0]):
            nn.init.kaiming_uniform_(conv.weight, a=1)  # type: ignore[arg-type]

    def forward(self, x: Tensor, residual: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            x: The student's map (N, in_channels, H_s, W_s).
            residual: What the deeper stage passed on (N, mid_channels, H, W); None for the deepest.
            size: Height and width of the teacher's map.

        Returns:
            To compare with the teacher (N, out_channels, *size), and what is passed on (N, mid_channels, *size).
        """
        x = self.project(x)
        if self.gate is not None and residual is not None:
            residual = F.interpolate(residual, x.shape[2:], mode='nearest')
            z = self.gate(torch.cat([x, residual], dim=1)).sigmoid()
            x = x * z[:, 0:1] + residual * z[:, 1:2]
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode='nearest')
        return self.out(x), x


class ReviewKDLoss(DistillLoss):
    """ReviewKD: a teacher stage and the fusion of the student's stages from there on, by :func:`hcl_loss`.

    ``on`` lists the stages from shallow to deep; a vector (N, D), such as the pooled one, counts as
    a 1x1 map. Classification compares the teacher's maps before their ReLU; detection compares the
    levels of FPN, with ``mid_channels=256``. Deviation: ``mid_channels`` is by default the smaller of
    512 and the student's channels at the deepest stage (mdistiller names such an option and does
    not read it). In a last batch of one image, batch norms of 1x1 stages use their running statistics.

    Args:
        mid_channels: Channels inside the fusions; inferred when None.
        loss_weight: Factor on the value. Published ones are in ``configs/``.

    Raises:
        ValueError: If ``mid_channels`` is not positive or the weight is negative.
    """

    relates_layers: ClassVar[bool] = True

    def __init__(self, mid_channels: int | None = None, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.mid_channels = None if mid_channels is None else check_whole(mid_channels, 'mid_channels', low=1)
        self.fusions = nn.ModuleList()

    def build_connectors(self, student: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]]) -> None:
        """Make one fusion for each stage.

        Raises:
            ValueError: If a stage is neither a map nor a vector, or the lists differ in length.
        """
        shapes = (*student, *teacher)
        if not student or len(student) != len(teacher) or any(len(shape) not in (2, 4) for shape in shapes):
            raise ValueError(
                f'student stages {[tuple(s) for s in student]} and teacher stages {[tuple(t) for t in teacher]} given, '
                'expected as many of each, from shallow to deep, all maps (N, C, H, W) or vectors (N, D)'
            )
        heights = [shape[2] if len(shape) == 4 else 1 for shape in student]
        if heights != sorted(heights, reverse=True):
            raise ValueError(
                f'student stages of heights {heights} given, expected them from shallow (large) to deep (small)'
            )
        mid = self.mid_channels or min(_MAX_MID_CHANNELS, student[-1][1])
        self.fusions = nn.ModuleList(
            ABF(s[1], mid, t[1], fuses=index < len(student) - 1)
            for index, (s, t) in enumerate(zip(student, teacher, strict=True))
        )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Weighted sum of :func:`hcl_loss` over the stages; lists of tensors, shallow to deep."""
        if not len(student) == len(teacher) == len(self.fusions):
            raise ValueError(
                f'{len(student)} student and {len(teacher)} teacher stages given, expected {len(self.fusions)} of each'
            )
        values = []
        residual: Tensor | None = None
        for fusion, s, t in reversed(
            list(zip(self.fusions, map(_as_map, student), map(_as_map, teacher), strict=True))
        ):
            fused, residual = fusion(s, residual, t.shape[2:])
            values.append(hcl_loss(fused, t))
        return self.loss_weight * torch.stack(values).sum()

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'mid_channels={self.mid_channels}, {super().extra_repr()}'


def _as_map(features: Tensor) -> Tensor:
    return features[:, :, None, None] if features.ndim == 2 else features
