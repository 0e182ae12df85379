"""What losses on features share: checking maps and vectors, and bringing them to one size or length."""

import torch
import torch.nn.functional as F
from torch import Tensor


def check_maps(student: Tensor, teacher: Tensor) -> None:
    """Check that two tensors are feature maps of the same images.

    Raises:
        ValueError: If they are not (N, C_s, H_s, W_s) and (N, C_t, H_t, W_t) with the same N.
    """
    if student.ndim != 4 or teacher.ndim != 4 or len(student) != len(teacher):
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} given, expected two feature maps '
            '(N, C, H, W) of the same N images: tap modules whose output still has height and width'
        )


def pool_to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average the larger of two maps down, so that both have the smaller height and the smaller width.

    Args:
        student: (N, C_s, H_s, W_s).
        teacher: (N, C_t, H_t, W_t).

    Returns:
        Both with ``min(H_s, H_t)`` rows and ``min(W_s, W_t)`` columns.
    """
    size = min(student.size(2), teacher.size(2)), min(student.size(3), teacher.size(3))
    pooled = [m if m.shape[2:] == size else F.adaptive_avg_pool2d(m, size) for m in (student, teacher)]
    return pooled[0], pooled[1]


def as_vectors(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """One vector for each sample: vectors as they are, and feature maps averaged over their positions.

    Args:
        student: (N, D_s) or (N, C_s, H_s, W_s).
        teacher: (N, D_t) or (N, C_t, H_t, W_t), of the same N samples.

    Returns:
        (N, D_s) and (N, D_t), a map's D being its channels.

    Raises:
        ValueError: If they are something else.
    """
    if {student.ndim, teacher.ndim} - {2, 4} or len(student) != len(teacher):
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} given, expected vectors (N, D) or '
            'feature maps (N, C, H, W), which are averaged over their positions, of the same N samples'
        )
    vectors = [x if x.ndim == 2 else x.mean((2, 3)) for x in (student, teacher)]
    return vectors[0], vectors[1]


def unit_vectors(x: Tensor, dead: float = 1e-6) -> Tensor:
    """The vectors along the last dimension, each over its length.

    Args:
        x: (..., D).
        dead: A vector that is not longer has no direction: it becomes 0, without gradient, as the slope would be
            infinite.

    Returns:
        (..., D), of length 1 or 0.
    """
    length = x.norm(dim=-1, keepdim=True)
    return x * torch.where(length > dead, 1 / length.clamp_min(dead), 0)
