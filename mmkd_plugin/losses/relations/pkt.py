"""PKT: probabilistic knowledge transfer (Passalis and Tefas)."""

from torch import Tensor

from ..base import full_precision
from ..gather import SampleRelationLoss
from ..shapes import as_vectors, unit_vectors

_EPS = 1e-7


@full_precision
def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """How far the student's samples are from choosing the same neighbours as the teacher's.

    N. Passalis, A. Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV
    2018, arXiv 1803.10837, with the cosine kernel. Sample i chooses sample j, itself included, with

    ``p_j|i = K_ij / sum_k K_ik``,  ``K_ij = (cos(x_i, x_j) + 1) / 2``

    and the value is ``1 / N**2 * sum_ij p_t * log((p_t + eps) / (p_s + eps))`` with eps = 1e-7. That a
    sample may choose itself, and the mean over all N x N entries, are those of the authors' code and of
    RepDistiller, which the usual weight of 30000 belongs to. Deviation: a vector shorter than 1e-6 counts
    as 0, with the cosine 0 to all and without gradient, where the codes add eps to each length and set what
    is no number to 0.

    Args:
        student: (N, D_s) or (N, C_s, H_s, W_s); maps are averaged over their positions.
        teacher: (N, D_t) or (N, C_t, H_t, W_t), taken as constant; its dimension may be another.

    Returns:
        Scalar >= 0 up to eps, in nats, mean over pairs of samples; 0 for an empty batch.

    Raises:
        ValueError: If these are no vectors or maps of the same samples.

    Example:
        >>> import torch
        >>> round(pkt_loss(torch.ones(2, 3), torch.eye(2)).item(), 5)  # alike, and at right angles
        0.02832
    """
    student, teacher = as_vectors(student, teacher.detach())
    p_s, p_t = (_choices(vectors) for vectors in (student, teacher))
    divergence = p_t * ((p_t + _EPS).log() - (p_s + _EPS).log())
    return divergence.sum() / max(divergence.numel(), 1)


def _choices(vectors: Tensor) -> Tensor:
    """(N, N): row i is the distribution over the samples that sample i chooses from."""
    unit = unit_vectors(vectors)
    kernel = ((unit @ unit.mT + 1) / 2).clamp_min(0)  # rounding may go below
    return kernel / kernel.sum(1, keepdim=True)


class PKTLoss(SampleRelationLoss):
    """PKT, see :func:`pkt_loss`; usually on the pooled vector.

    Samples choose among those of their own process's batch, unless ``gather=True``. The value falls with the batch
    size: a weight belongs to one.

    Args:
        gather: Relate the samples of all processes.
        loss_weight: Factor on the value; 30000 is the usual one, at batch 64.

    Raises:
        ValueError: If ``gather`` is no boolean or the weight is negative.
    """

    def __init__(self, gather: bool = False, loss_weight: float = 30000.0) -> None:
        super().__init__(gather, loss_weight)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`pkt_loss` of two tensors of vectors or maps."""
        student, teacher = self.joined(student, teacher)
        return self.loss_weight * pkt_loss(student, teacher)
