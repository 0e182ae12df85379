"""Information flow: sample affinities with two kernels, layer by layer (Passalis, Tzelepi and Tefas)."""

import torch
from torch import Tensor

from ..base import full_precision
from ..gather import SampleRelationLoss
from ..shapes import as_vectors, unit_vectors

_EPS = 1e-7  # of probabilities
_EPS_SQUARED = 1e-6  # of squared distances, whose root would have an infinite slope


@full_precision
def flow_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """How far the student's samples are from choosing the same neighbours as the teacher's, both ways, by two kernels.

    N. Passalis, M. Tzelepi, A. Tefas, "Heterogeneous Knowledge Distillation using Information Flow Modeling", CVPR
    2020, arXiv 2005.00727. With each kernel sample i chooses sample j, itself included:

    ``p_j|i = K_ij / sum_k K_ik``,  ``K_cos = (cos(x_i, x_j) + 1) / 2``,  ``K_T = 1 / (1 + |x_i - x_j|)``

    and the value is the sum over both kernels of the Jeffreys divergence
    ``1 / N**2 * sum_ij (p_s - p_t) * (log p_s - log p_t)``, as in the authors' code; the paper derives it from the
    information that layers have of the targets. K_T is Student's kernel with d = 1. Deviations: 1e-7 is added to the
    probabilities in the logarithms, since cos = -1 has none (the code adds nothing), and a vector shorter than 1e-6
    counts as 0 in K_cos, with the cosine 0 to all and without gradient. Distances are roots of squares plus 1e-6.

    Args:
        student: (N, D_s) or (N, C_s, H_s, W_s); maps are averaged over their positions.
        teacher: (N, D_t) or (N, C_t, H_t, W_t), taken as constant; its dimension may be another.

    Returns:
        Scalar >= 0, in nats, mean over pairs of samples; 0 for an empty batch.

    Raises:
        ValueError: If these are no vectors or maps of the same samples.

    Example:
        >>> import torch  # the cosines alike, and at right angles; the distances 0, and the square root of 2
        >>> round(flow_loss(torch.ones(2, 3), torch.eye(2)).item(), 4)
        0.1488
    """
    student, teacher = as_vectors(student, teacher.detach())
    if not len(student):
        return student.sum() * 0.0
    of_student, of_teacher = _choices(student), _choices(teacher)
    odds = (of_student + _EPS).log() - (of_teacher + _EPS).log()
    return ((of_student - of_teacher) * odds).sum() / len(student) ** 2


def _choices(vectors: Tensor) -> Tensor:
    """(2, N, N): by kernel, row i is the distribution over the samples that sample i chooses from."""
    unit = unit_vectors(vectors)
    cosine = ((unit @ unit.mT + 1) / 2).clamp_min(0)  # rounding may go below
    kernels = torch.stack([cosine, 1 / (1 + (_squared_distances(vectors) + _EPS_SQUARED).sqrt())])
    return kernels / kernels.sum(2, keepdim=True)


def _squared_distances(vectors: Tensor) -> Tensor:
    """(N, N) from one matrix product; what is within its rounding is 0, without gradient."""
    centred = vectors - vectors[:1].detach()  # equal vectors become exactly 0
    centred = centred - centred.detach().mean(0)  # so that less is lost where the product's terms cancel
    gram = centred @ centred.mT
    sums = gram.diagonal()[:, None] + gram.diagonal()
    squared = sums - 2 * gram
    return torch.where(squared <= 16 * torch.finfo(gram.dtype).eps * sums, 0, squared)


class FlowLoss(SampleRelationLoss):
    """Information flow, see :func:`flow_loss`, for one layer or a list of them.

    The paper's student learns from an auxiliary network of its own depth and more width, which learnt from the teacher
    at the last layer alone; for ``configs/digits/flow_resnet.py`` ``tools/chain.py`` trains one after the other. Its
    weights are two entries: 1 at the last layer, and at the layers before it ``100 * 0.7 ** epoch``, which is
    ``loss_weight=100.0, schedule=dict(decay=40, final=0.7**40, curve='exponential')`` in 40 epochs. The authors train
    without labels; for classification the task loss is to stay.

    Samples choose among those of their own process's batch, unless ``gather=True``. The value falls with the batch
    size: a weight belongs to one.

    Args:
        gather: Relate the samples of all processes.
        loss_weight: Factor on the value; 1 is the authors' at the last layer, at batch 128.

    Raises:
        ValueError: If ``gather`` is no boolean or the weight is negative.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`flow_loss` of two tensors of vectors or maps."""
        student, teacher = self.joined(student, teacher)
        return self.loss_weight * flow_loss(student, teacher)
