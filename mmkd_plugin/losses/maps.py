"""What losses on feature maps share: checking them, and bringing them to one size."""

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
