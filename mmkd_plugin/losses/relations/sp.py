"""SP: similarity-preserving distillation (Tung and Mori)."""

import torch
from torch import Tensor

from ..base import full_precision
from ..gather import SampleRelationLoss
from ..shapes import unit_vectors


@full_precision
def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared distance of two matrices of similarities between samples.

    F. Tung, G. Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682. With
    all values of a sample in one row of Q, G = Q Q^T, and each row of G over its Euclidean length:

    ``1 / N**2 * ||G_t - G_s||_F**2``

    The usual weight of 3000 belongs to this form, which is the paper's and RepDistiller's. Nothing is
    centred: values after a ReLU have similarities >= 0. A sample of nothing but zeros has a row of
    zeros, without gradient.

    Args:
        student: (N, ...): vectors, maps, or values of any other shape.
        teacher: (N, ...), taken as constant; of the same N samples, and else of any shape.

    Returns:
        Scalar in [0, 4 / N], dimensionless, mean over pairs of samples; 0 for an empty batch.

    Raises:
        ValueError: If a side has less than two dimensions, or the numbers of samples differ.

    Example:
        >>> round(sp_loss(torch.ones(2, 3), torch.eye(2)).item(), 4)  # alike, and at right angles
        0.2929
    """
    if student.ndim < 2 or teacher.ndim < 2 or len(student) != len(teacher):
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} given, expected two tensors (N, ...) '
            'of the same N samples, with at least two dimensions'
        )
    difference = _similarities(student) - _similarities(teacher.detach())
    return difference.square().sum() / max(difference.numel(), 1)


def _similarities(features: Tensor) -> Tensor:
    """(N, N), rows of length 1."""
    rows = features.flatten(1)
    gram = rows @ rows.mT
    # a common factor is free, and as a constant it changes no gradient
    scale = gram.detach().trace().clamp_min(torch.finfo(gram.dtype).tiny)
    return unit_vectors(gram / scale, dead=1e-12)


class SPLoss(SampleRelationLoss):
    """SP, see :func:`sp_loss`; usually at the end of the last stage.

    Samples are compared with those of their own process's batch, unless ``gather=True``, which sends whole maps. The
    value falls with the batch size: a weight belongs to one.

    Args:
        gather: Relate the samples of all processes.
        loss_weight: Factor on the value; 3000 is the usual one, at batch 64.

    Raises:
        ValueError: If ``gather`` is no boolean or the weight is negative.
    """

    def __init__(self, gather: bool = False, loss_weight: float = 3000.0) -> None:
        super().__init__(gather, loss_weight)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`sp_loss` of two tensors (N, ...)."""
        student, teacher = self.joined(student, teacher)
        return self.loss_weight * sp_loss(student, teacher)
