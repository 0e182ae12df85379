"""LP: locality-preserving feature embedding (Chen et al.)."""

import torch
from torch import Tensor

from ...options import check_whole
from ..base import full_precision
from ..gather import SampleRelationLoss
from ..shapes import as_vectors


@full_precision
def lp_loss(student: Tensor, teacher: Tensor, k: int = 5, sigma2: float | str = 2.0) -> Tensor:
    """Squared distances of the student's vectors, of samples that are neighbours to the teacher.

    H. Chen, Y. Wang, C. Xu, C. Xu, D. Tao, "Learning Student Networks via Feature Embedding", IEEE TNNLS
    2021, arXiv 1812.06597. Sample i has as neighbours the k others that are nearest to it in the teacher,
    with ``a_ij = exp(-||t_i - t_j||**2 / sigma2)``, and a_ij = 0 for the rest:

    ``1 / (N k) * sum_ij a_ij * ||s_i - s_j||**2``

    The formula's gamma is left to the weight. Constant student vectors give 0: a task loss has to keep
    them apart. The numbers by default are those of two public re-implementations, whose distances carry no
    gradient; those of the paper could not be verified. sigma2 = 2 lets a_ij fall to 0 where the teacher's
    vectors are long. Deviation: a batch that is too small for k others has all there are as neighbours, where
    the re-implementations take half of it.

    Args:
        student: (N, D_s) or (N, C_s, H_s, W_s); maps are averaged over their positions.
        teacher: (N, D_t) or (N, C_t, H_t, W_t), taken as constant; its dimension may be another.
        k: Neighbours of each sample, >= 1; among equally near ones the choice is arbitrary.
        sigma2: A number > 0, in the teacher's squared units, or ``mean``: of the squared distances of all pairs
            of different samples in the batch, whatever the length of the teacher's vectors.

    Returns:
        Scalar >= 0 up to rounding, in the student's squared units, mean over pairs of neighbours; 0 for less
        than two samples.

    Raises:
        ValueError: If these are no vectors or maps of the same samples, or an argument is out of range.

    Example:
        >>> t = torch.tensor([[0.0], [1.0]])
        >>> round(lp_loss(torch.tensor([[0.0], [3.0]]), t).item(), 4)  # exp(-1 / 2) * 9
        5.4588
    """
    k = check_whole(k, 'k', low=1)
    _check_sigma2(sigma2)
    student, teacher = as_vectors(student, teacher.detach())
    weights = _neighbours(teacher, k, sigma2)
    # with row and column sums: sum_ij w_ij |s_i - s_j|^2 = sum_i (row_i + column_i) |s_i|^2 - 2 sum_ij w_ij s_i.s_j
    student = student - student.detach().sum(0) / max(len(student), 1)  # which no distance sees, and rounding does
    gram = student @ student.mT
    own = ((weights.sum(0) + weights.sum(1)) * gram.diagonal()).sum()
    return (own - 2 * (weights * gram).sum()) / max(len(student) * min(k, len(student) - 1), 1)


def _neighbours(teacher: Tensor, k: int, sigma2: float | str) -> Tensor:
    """(N, N): a_ij."""
    count = len(teacher)
    centred = teacher - teacher.sum(0) / max(count, 1)
    gram = centred @ centred.mT
    lengths = gram.diagonal()
    distances = (lengths[:, None] + lengths - 2 * gram).clamp_min(0).fill_diagonal_(0)
    if isinstance(sigma2, str):
        scale = distances.sum() / max(count * (count - 1), 1)
        strength = (-distances / scale.clamp_min(torch.finfo(distances.dtype).tiny)).exp()
    else:
        strength = (-distances / sigma2).exp()
    others = distances.fill_diagonal_(torch.inf)
    nearest = others.topk(max(min(k, count - 1), 0), dim=1, largest=False, sorted=False).indices
    return torch.zeros_like(strength).scatter_(1, nearest, strength.gather(1, nearest))


def _check_sigma2(sigma2: float | str) -> None:
    number = isinstance(sigma2, (int, float)) and not isinstance(sigma2, bool) and 0 < sigma2 < float('inf')
    if not number and sigma2 != 'mean':
        raise ValueError(f"sigma2={sigma2!r} given, expected a finite number > 0 or 'mean'")


class LPLoss(SampleRelationLoss):
    """LP, see :func:`lp_loss`; beside a task loss only, as without one all vectors become the same.

    Neighbours are looked for in each process's own batch, unless ``gather=True``.

    Args:
        k: Neighbours of each sample, >= 1.
        sigma2: How fast the weight of a neighbour falls with its distance: a number > 0, or ``mean``, which cannot
            underflow. With ``mean`` all neighbours count, near or not, so that it needs a much smaller ``loss_weight``.
        gather: Relate the samples of all processes.
        loss_weight: Factor on the value, the formula's gamma; 1.5 belongs to ``sigma2=2`` in re-implementations.

    Raises:
        ValueError: If an argument is out of range or the weight is negative.
    """

    def __init__(self, k: int = 5, sigma2: float | str = 2.0, gather: bool = False, loss_weight: float = 1.5) -> None:
        super().__init__(gather, loss_weight)
        self.k = check_whole(k, 'k', low=1)
        _check_sigma2(sigma2)
        self.sigma2 = sigma2

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`lp_loss` of two tensors of vectors or maps."""
        student, teacher = self.joined(student, teacher)
        return self.loss_weight * lp_loss(student, teacher, self.k, self.sigma2)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        sigma2 = repr(self.sigma2) if isinstance(self.sigma2, str) else f'{self.sigma2:g}'
        return f'k={self.k}, sigma2={sigma2}, {super().extra_repr()}'
