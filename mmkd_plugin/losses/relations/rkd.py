"""RKD: relational knowledge distillation by distances and angles (Park et al.)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...options import check_bool, check_number
from ..base import full_precision
from ..gather import SampleRelationLoss
from ..shapes import as_vectors
from .distances import squared_distances

_SHORT = 1e-12  # a shorter vector has no direction
_ANGLES = 2**22  # that are computed at once: all of 161 samples, or those at 4 of 1,024


@full_precision
def rkd_loss(
    student: Tensor,
    teacher: Tensor,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    normalize: bool = False,
) -> Tensor:
    r"""Weighted sum of the distance term and the angle term, whose distances are computed once.

    W. Park, D. Kim, Y. Lu, M. Cho, "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068. See
    :func:`rkd_distance_loss` and :func:`rkd_angle_loss`; both are means, as in the authors' code, where the paper
    writes sums.

    Args:
        student: (N, D_s), or maps (N, C_s, H, W), which are averaged over their positions.
        teacher: (N, D_t) or maps, taken as constant.
        distance_weight: Factor on the distance term; 0 leaves it out.
        angle_weight: Factor on the angle term; 0 leaves it out.
        normalize: Scale the vectors to length 1 first; those of length 0 stay.

    Returns:
        Scalar >= 0, dimensionless; 0 for an empty batch.

    Raises:
        ValueError: If these are no vectors or maps of the same samples.
    """
    student, teacher = as_vectors(student, teacher.detach())
    total = student[:0].sum()  # depends on the student, whatever is left out
    if not (student.numel() and teacher.numel()):
        return total
    if normalize:
        student, teacher = _unit(student), _unit(teacher)
    of_student, of_teacher = squared_distances(student), squared_distances(teacher)
    if distance_weight:
        psi = relative_distances(of_student), relative_distances(of_teacher)
        total = total + distance_weight * F.smooth_l1_loss(*psi)
    if angle_weight:
        total = total + angle_weight * _MeanOfAngles.apply(of_student, of_teacher)  # type: ignore[no-untyped-call]
    return total


def rkd_distance_loss(student: Tensor, teacher: Tensor, normalize: bool = False) -> Tensor:
    r"""Distance term of RKD: how far apart two samples are, compared with the others.

    ``mean_ij h(d_ij^s / mu^s - d_ij^t / mu^t)`` with d the Euclidean distances, mu the mean of a network's positive
    ones (through which the gradient flows), and h the Huber function, ``x**2 / 2`` up to 1 and ``abs(x) - 1/2`` beyond.
    The mean is over all N**2 pairs, the N of a sample with itself included.

    Args:
        student: (N, D_s), or maps (N, C_s, H, W), which are averaged over their positions.
        teacher: (N, D_t) or maps, taken as constant.
        normalize: Scale the vectors to length 1 first.

    Returns:
        Scalar >= 0, dimensionless; 0 for an empty batch.

    Raises:
        ValueError: If these are no vectors or maps of the same samples.

    Example:
        >>> import torch  # distances 1, 1, 2 and 1, 2, 1; mean 4/3; four of nine entries differ by 3/4
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [-1.0]])
        >>> rkd_distance_loss(x, y).item()  # 4/9 * (3/4)**2 / 2
        0.125
    """
    return rkd_loss(student, teacher, 1.0, 0.0, normalize)


def rkd_angle_loss(student: Tensor, teacher: Tensor, normalize: bool = False) -> Tensor:
    r"""Angle term of RKD: the cosines of all angles that three samples make.

    ``mean_ijk h(cos_ijk^s - cos_ijk^t)`` with cos_ijk the cosine of the angle at sample i between samples j and k, and
    h the Huber function. The mean is over all N**3 triplets; those with j or k equal to i have no angle and count as 0.

    Cosines come from the squared distances, ``(q_ij + q_ik - q_jk) / (2 d_ij d_ik)``, without any difference of
    vectors: N**3 numbers instead of N**3 * D, of which no more than some millions are there at once. The
    gradient is computed along with the value, and kept as N**2 numbers.

    Args:
        student: (N, D_s), or maps (N, C_s, H, W), which are averaged over their positions.
        teacher: (N, D_t) or maps, taken as constant.
        normalize: Scale the vectors to length 1 first.

    Returns:
        Scalar >= 0, dimensionless; 0 for an empty batch.

    Raises:
        ValueError: If these are no vectors or maps of the same samples.

    Example:
        >>> import torch  # cosines 1, 1, -1 at the three samples, and -1, 1, 1: two of each come twice in 27
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [-1.0]])
        >>> round(rkd_angle_loss(x, y).item(), 6)  # 4/27 * (2 - 1/2)
        0.222222
    """
    return rkd_loss(student, teacher, 0.0, 1.0, normalize)


def relative_distances(squared: Tensor) -> Tensor:
    """Distances (N, N) over the mean of the positive ones, of squared distances."""
    apart = squared != 0
    distances = torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)
    mean = distances.sum() / apart.sum().clamp_min(1)
    return distances / torch.where(mean == 0, 1, mean)


def _unit(vectors: Tensor) -> Tensor:
    """Of length 1; 0 without gradient for those of length 0, where the slope would be infinite."""
    length = vectors.norm(dim=1, keepdim=True)
    return vectors * torch.where(length > _SHORT, 1 / length.clamp_min(_SHORT), 0)


class _MeanOfAngles(torch.autograd.Function):
    """Mean over all triplets of the Huber function of the differences of cosines, of squared distances (N, N)."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        n = len(student)
        inverse, inverse_t = _inverse_roots(student), _inverse_roots(teacher)
        total, slope = student.new_zeros(()), torch.zeros_like(student)
        step = min(n, max(1, _ANGLES // n**2))
        buffers = [student.new_empty(step, n, n) for _ in range(3)]  # used again: new memory costs more than the sums
        for start in range(0, n, step):
            at = slice(start, min(start + step, n))
            cosines, difference, huber_slope = (buffer[: at.stop - start] for buffer in buffers)
            _cosines(student, inverse, at, cosines)
            _cosines(teacher, inverse_t, at, difference)
            torch.sub(cosines, difference, out=difference)
            torch.clamp(difference, -1, 1, out=huber_slope)
            total += difference.sub_(huber_slope, alpha=0.5).mul_(huber_slope).sum()
            if ctx.needs_input_grad[0]:
                # by q_ij and q_ik alike, through the numerator and through the distance below it; and by q_jk
                below = cosines.mul_(huber_slope).sum(2)
                above = _divided(huber_slope, inverse, at)
                slope[at] += 2 * above.sum(2) - inverse[at].square() * below
                slope -= above.sum(0)
        ctx.save_for_backward(slope / n**3)
        return total / n**3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None


def _inverse_roots(squared: Tensor) -> Tensor:
    apart = squared != 0
    return torch.where(apart, torch.where(apart, squared, 1).rsqrt(), 0)


def _cosines(squared: Tensor, inverse: Tensor, at: slice, out: Tensor) -> None:
    """Those of the angles at some of the samples, (n, N, N)."""
    torch.add(squared[at][:, :, None], squared[at][:, None], out=out).sub_(squared)
    _divided(out, inverse, at)


def _divided(triplets: Tensor, inverse: Tensor, at: slice) -> Tensor:
    """In place, by ``2 d_ij d_ik``."""
    return triplets.mul_((0.5 * inverse[at])[:, :, None]).mul_(inverse[at][:, None])


class RKDLoss(SampleRelationLoss):
    """RKD, see :func:`rkd_loss`; dimensions may differ, and nothing is learned.

    The samples of each process's batch are compared with each other, unless ``gather=True``: the value depends on how
    many there are.

    The weights 25 and 50 are those of the CRD benchmark's code for classification on pooled vectors, which MMRazor has
    too; the authors' own scripts for metric learning have 1 and 2, without a task loss. The angle term is work of N**3:
    leave it out (``angle_weight=0``) for the RoIs of a detector.

    Deviations: two samples that are equal up to rounding have distance 0. MMRazor scales vectors to length 1
    (``normalize=True``), the authors do not.

    Args:
        distance_weight: Factor on the distance term; 0 leaves it out.
        angle_weight: Factor on the angle term; 0 leaves it out.
        normalize: Scale the vectors to length 1 first.
        gather: Compare the samples of all processes.
        loss_weight: Factor on the sum.

    Raises:
        ValueError: If a weight is negative, if both terms are left out, or if a boolean is none.
    """

    def __init__(
        self,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        normalize: bool = False,
        gather: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(gather, loss_weight)
        self.distance_weight = check_number(distance_weight, 'distance_weight')
        self.angle_weight = check_number(angle_weight, 'angle_weight')
        self.normalize = check_bool(normalize, 'normalize')
        if not (distance_weight or angle_weight):
            raise ValueError(
                f'distance_weight={distance_weight!r} and angle_weight={angle_weight!r} given, expected one of them '
                'above 0; loss_weight=0 switches a loss off'
            )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`rkd_loss` of two tapped tensors."""
        student, teacher = self.joined(student, teacher)
        weights = self.distance_weight, self.angle_weight
        return self.loss_weight * rkd_loss(student, teacher, *weights, self.normalize)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return (
            f'distance_weight={self.distance_weight:g}, angle_weight={self.angle_weight:g}, '
            f'normalize={self.normalize}, {super().extra_repr()}'
        )
