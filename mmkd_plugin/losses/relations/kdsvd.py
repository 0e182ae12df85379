"""KD-SVD: singular vectors of the layers, and how they go with each other (Lee et al.)."""

from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from ...options import check_whole
from ..base import full_precision
from .layers import LayerRelationLoss, check_layers

_DEAD = 1e-6  # a map of a smaller norm has no direction
_RANK = 1e-6  # of the first eigenvalue: what is smaller is no direction; products in float32 make more than 1e-7
_BROADENING = 1e-8  # added to squared differences of eigenvalues, of which the sum is 1
_SPARE = 3  # further vectors of the student, among which those that fit the teacher's are sought
_ORDER = 12  # of the kernel's series: what is left out is below 1e-15


@full_precision
def kdsvd_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], vectors: int = 1) -> Tensor:
    r"""Squared differences of two networks' correlations between leading singular vectors of consecutive layers.

    S. H. Lee, D. H. Kim, B. C. Song, "Self-supervised Knowledge Distillation Using Singular Value Decomposition",
    ECCV 2018, arXiv 1807.06819. The map of one image at layer l is a matrix M_l of H*W positions by C_l channels. V_l,
    (C_l, k), are its first k right singular vectors, and s_l the first k singular values, scaled to length 1. The
    student has k + 3 vectors; for each one of the teacher that with the largest abs(cosine) is taken, times the sign of
    the cosine. Both sides are then multiplied by the *teacher's* s_l, and compared through

    ``R_l[c, c', j] = exp(-(V_l[c, j] - V_l-1[c', j])^2 / 8)``,
    ``L = 1 / N * sum_n sum_l sum_cc'j (R_l of the student - R_l of the teacher)^2``

    Which vector is taken, its sign and s_l are constants. R is never made: the kernel is a series in products of the
    two entries, whose first 12 terms are all that float64 holds of it, so that the sum over c, c' is one of products
    of 12 x 12 matrices. Vectors are eigenvectors of M^T M or M M^T, whichever is smaller.

    Deviations: the sign of a teacher's vector, which is arbitrary and counts where two layers meet, is such that its
    entries sum to a value >= 0. Directions whose singular value is below a thousandth of the first, and all of a map
    of a norm below 1e-6, are vectors of zeros (other codes set what is not finite to 0). Gradients divide by
    differences of squared singular values; here 1 / x is x / (x^2 + 1e-8), of maps scaled to norm 1, which is finite
    where two are equal.

    Args:
        student: Two or more maps (N, C_l, H, W), of any sizes.
        teacher: As many maps with the same channels, taken as constant; sizes may be other ones.
        vectors: The teacher's k.

    Returns:
        Scalar >= 0 up to rounding, dimensionless, mean over the batch and sum over all else; 0 for an empty batch.

    Raises:
        ValueError: If the layers do not correspond, or ``vectors`` is no whole number >= 1.

    Example:
        >>> import torch
        >>> right, down = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 5.0]).view(1, 2, 1, 1)
        >>> round(kdsvd_loss([right, right], [right, down]).item(), 4)  # four times (1 - e^(-1/8))^2
        0.0552
    """
    check_whole(vectors, 'vectors', low=1)
    check_layers([x.shape for x in student], [x.shape for x in teacher])
    values = [_features(s, t.detach(), vectors) for s, t in zip(student, teacher, strict=True)]
    per_pair = [_squared_differences(*front, *back) for front, back in pairwise(values)]
    return torch.stack(per_pair).sum() / max(len(student[0]), 1)


@full_precision
def singular_vectors(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The leading right singular vectors of maps, each taken as a matrix of positions by channels.

    Args:
        maps: (N, C, H, W).
        count: How many.

    Returns:
        Vectors (N, C, count), of length 1 and arbitrary sign, or 0 for directions that are not there; singular values
        (N, count) without gradient, of the maps scaled to norm 1. Not finite for an image that is not.

    Example:
        >>> import torch
        >>> vectors, values = singular_vectors(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), 2)
        >>> [[round(abs(x), 4) for x in row] for row in vectors[0].mT.tolist()]  # one position: one direction
        [[0.6, 0.8], [0.0, 0.0]]
    """
    matrix = maps.flatten(2)
    wide = matrix.size(1) <= matrix.size(2)
    gram = matrix @ matrix.mT if wide else matrix.mT @ matrix
    total = gram.detach().diagonal(dim1=1, dim2=2).sum(1, keepdim=True)  # not finite as soon as an entry is not
    # a scale changes no vector, so it is a constant
    gram = torch.where(total.isfinite()[..., None], gram / total.clamp_min(_DEAD**2)[..., None], 0)
    found = min(count, gram.size(1))
    squares, vectors = _Leading.apply(gram, found)  # type: ignore[no-untyped-call]
    alive = (squares > _RANK * squares[:, :1]) & (total > _DEAD**2)
    alive = torch.where(total.isfinite(), alive.to(gram.dtype), torch.nan)
    if not wide:
        vectors = normalize(matrix @ vectors, dim=1)
    missing = (0, count - found)
    return pad(vectors * alive[:, None], missing), pad(squares.clamp_min(0).sqrt() * alive, missing)


class _Leading(torch.autograd.Function):
    """The largest eigenvalues (N, k), without gradient, and eigenvectors (N, n, k) of symmetric matrices (N, n, n)."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, count: int) -> tuple[Tensor, Tensor]:
        values, vectors = (x.flip(-1) for x in torch.linalg.eigh(matrices))
        ctx.save_for_backward(values, vectors)
        leading = values[:, :count].clone()
        ctx.mark_non_differentiable(leading)
        return leading, vectors[..., :count].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, _: Tensor, slope: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        count = slope.size(2)
        gaps = values[:, None, :count] - values[:, :, None]
        turning = vectors.mT @ slope * gaps / (gaps.square() + _BROADENING)
        gradient = vectors @ turning @ vectors[..., :count].mT
        return (gradient + gradient.mT) / 2, None


def signed_vectors(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """:func:`singular_vectors` of a teacher, each with the sign by which its entries sum to a value >= 0."""
    vectors, values = singular_vectors(maps, count)
    return torch.where(vectors.sum(1, keepdim=True) < 0, -vectors, vectors), values


def aligned_vectors(maps: Tensor, targets: Tensor) -> Tensor:
    """A student's singular vectors, of which it has three more: the nearest to each target, times the cosine's sign.

    Args:
        maps: (N, C, H, W).
        targets: Vectors of the teacher (N, C, k), taken as constant.

    Returns:
        (N, C, k).
    """
    vectors, _ = singular_vectors(maps, targets.size(2) + _SPARE)
    with torch.no_grad():
        cosines = vectors.mT @ targets  # (N, k + 3, k)
        nearest = cosines.abs().argmax(1, keepdim=True)
        sign = torch.where(cosines.gather(1, nearest) < 0, -1, 1)
    return vectors.gather(2, nearest.expand(-1, vectors.size(1), -1)) * sign


def _features(student: Tensor, teacher: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of one layer, student and teacher: aligned, weighted vectors as :func:`kernel_features` (N, k, C, order)."""
    v_t, values = signed_vectors(teacher, count)
    v_s = aligned_vectors(student, v_t)
    weights = normalize(values, dim=1)[:, None]
    return kernel_features((v_s * weights).mT), kernel_features((v_t * weights).mT)


def kernel_features(entries: Tensor) -> Tensor:
    """Factors of the kernel: the dot product of those of a and of b is exp(-(a - b)^2 / 8), for entries in [-1, 1].

    From exp(-(a - b)^2 / 8) = exp(-a^2 / 8) exp(-b^2 / 8) sum_n (a b / 4)^n / n!.

    Args:
        entries: (...).

    Returns:
        (..., 12).

    Example:
        >>> import torch
        >>> a, b = kernel_features(torch.tensor([1.0, -1.0]))
        >>> round((a @ b).item(), 4)  # e^(-1/2)
        0.6065
    """
    powers = torch.arange(_ORDER, device=entries.device, dtype=entries.dtype)
    scales = ((powers * log(0.25) - (powers + 1).lgamma()) / 2).exp()  # made on the device: a copy would wait for it
    return entries[..., None].pow(powers) * (entries.square() / -8).exp()[..., None] * scales


def _squared_differences(front_s: Tensor, front_t: Tensor, back_s: Tensor, back_t: Tensor) -> Tensor:
    """Sum of squares of ``back_s front_s^T - back_t front_t^T``, without making them or subtracting what is large."""
    front, back = front_s - front_t, back_s - back_t
    # the difference is `back front_s^T + back_t front^T`
    return (
        (back.mT @ back) * (front_s.mT @ front_s)
        + 2 * (back.mT @ back_t) * (front_s.mT @ front)
        + (back_t.mT @ back_t) * (front.mT @ front)
    ).sum()


class KDSVDLoss(LayerRelationLoss):
    """KD-SVD, see :func:`kdsvd_loss`; ``on`` lists the layers in their order, such as the ends of stages.

    The authors bound this loss's gradient by the task's: ``optim_wrapper=dict(type='BoundedOptimWrapper')``; without
    that it can outweigh it. Not finite for maps that are not.

    Args:
        vectors: Singular vectors of the teacher, k; the student has three more to choose from.
        connector: ``conv_bn`` for channels that differ: a learnable 1x1 convolution with batch norm at each layer of
            the student, as in the authors' second code (KD_methods_with_TF).
        loss_weight: Factor on the value; 1 is RepDistiller's.

    Raises:
        ValueError: If an argument is unknown or the weight is negative.
    """

    def __init__(self, vectors: int = 1, connector: str | None = None, loss_weight: float = 1.0) -> None:
        super().__init__(connector, loss_weight)
        self.vectors = check_whole(vectors, 'vectors', low=1)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Weighted :func:`kdsvd_loss` of two lists of maps."""
        return self.loss_weight * kdsvd_loss(self.connected(student, teacher), teacher, self.vectors)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'vectors={self.vectors}, {super().extra_repr()}'
