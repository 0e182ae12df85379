"""NST: neuron selectivity transfer (Huang and Wang)."""

from typing import Literal

import torch
from torch import Tensor

from ..base import DistillLoss, full_precision
from ..shapes import check_maps, pool_to_smaller, unit_vectors

Kernel = Literal['linear', 'polynomial', 'gaussian']


@full_precision
def nst_loss(
    student: Tensor, teacher: Tensor, kernel: Kernel = 'polynomial', variance: float | str = 'image'
) -> Tensor:
    r"""Squared maximum mean discrepancy between the channels of two feature maps.

    Z. Huang, N. Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", arXiv
    1707.01219, equations 6 to 8. Each channel, as a vector over the H*W positions, is scaled to
    length 1: x_i of the teacher, y_j of the student. For each image

    ``mean_ii' k(x_i, x_i') + mean_jj' k(y_j, y_j') - 2 mean_ij k(x_i, y_j)``

    with k = ``x.y`` (linear), ``(x.y)**2`` (polynomial, d = 2 and c = 0), or
    ``exp(-|x - y|**2 / (2 variance))`` (gaussian). The paper's factor 1/2 is left to the weight, as
    in the authors' code, which also leaves out the constant first term; here it stays, so that the
    value is >= 0. Each kernel is computed in its cheapest exact form: linear as the distance of the
    two mean channels; polynomial as the distance of two Gram matrices over positions, or from
    matrices of channels by channels, whichever is less work; gaussian from one matrix product.

    Args:
        student: (N, C_s, H_s, W_s).
        teacher: (N, C_t, H_t, W_t), taken as constant; the larger map is averaged down.
        kernel: One of the three.
        variance: Of the gaussian kernel: a number > 0, or the mean squared distance of the pairs
            x_i, y_j of each ``image`` or of the whole ``batch``, taken as constant. (The paper says
            "mean of the pairwise squared distances" without saying over which set.)

    Returns:
        Scalar >= 0 up to rounding, dimensionless, mean over the batch; 0 for an empty batch.

    Raises:
        ValueError: If these are no feature maps of the same images, or an argument is unknown.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
        >>> [round(nst_loss(x, y, k).item(), 4) for k in ('linear', 'polynomial', 'gaussian')]
        [2.0, 2.0, 0.7869]
    """
    check_maps(student, teacher)
    _check_kernel(kernel, variance)
    student, teacher = pool_to_smaller(student, teacher.detach())
    y, x = (unit_vectors(maps.flatten(2)) for maps in (student, teacher))
    if kernel == 'linear':
        per_image = (x.mean(1) - y.mean(1)).square().sum(1)
    elif kernel == 'polynomial':
        per_image = _polynomial(x, y)
    else:
        per_image = _gaussian(x, y, variance)
    return per_image.sum() / max(len(student), 1)


def _polynomial(x: Tensor, y: Tensor) -> Tensor:
    """(N,) for k = (x.y)^2."""
    positions, c_t, c_s = x.size(2), x.size(1), y.size(1)
    # multiplications for Gram matrices over positions, and for x.y, y.y (x.x) over channels
    if positions * (c_t + c_s) < c_t * c_s + c_t**2 + c_s**2:
        return (_gram(x) - _gram(y)).square().sum((1, 2))
    cross, own, constant = ((a @ b.mT).square().mean((1, 2)) for a, b in ((x, y), (y, y), (x, x)))
    return constant + own - 2 * cross


def _gram(channels: Tensor) -> Tensor:
    """Mean over channels of their outer products, (N, H*W, H*W)."""
    return channels.mT @ channels / channels.size(1)


def _gaussian(x: Tensor, y: Tensor, variance: float | str) -> Tensor:
    """(N,) for the gaussian kernel."""

    def squared_distances(a: Tensor, b: Tensor) -> Tensor:
        # lengths are 1, or 0 for a dead channel
        lengths = a.square().sum(2, keepdim=True) + b.square().sum(2, keepdim=True).mT
        return (lengths - 2 * a @ b.mT).clamp_min(0)

    cross = squared_distances(x, y)
    scale: Tensor | float
    if isinstance(variance, str):
        scale = cross.detach().mean((1, 2), keepdim=True)
        scale = (scale.mean(0, keepdim=True) if variance == 'batch' else scale).clamp_min(torch.finfo(cross.dtype).eps)
    else:
        scale = float(variance)

    def kernel(distances: Tensor) -> Tensor:
        return (-distances / (2 * scale)).exp().mean((1, 2))

    return kernel(squared_distances(x, x)) + kernel(squared_distances(y, y)) - 2 * kernel(cross)


def _check_kernel(kernel: str, variance: float | str) -> None:
    if kernel not in ('linear', 'polynomial', 'gaussian'):
        raise ValueError(f"kernel={kernel!r} given, expected 'linear', 'polynomial' or 'gaussian'")
    number = isinstance(variance, (int, float)) and not isinstance(variance, bool) and 0 < variance < float('inf')
    if not number and variance not in ('image', 'batch'):
        raise ValueError(f"variance={variance!r} given, expected a finite number > 0, 'image' or 'batch'")


class NSTLoss(DistillLoss):
    """NST, see :func:`nst_loss`; channel counts and sizes may differ.

    Args:
        kernel: ``polynomial`` (the usual one), ``linear`` or ``gaussian``.
        variance: Of the gaussian kernel.
        loss_weight: Factor on the value; 50 is the usual one for the polynomial kernel.

    Raises:
        ValueError: If an argument is unknown or the weight is negative.
    """

    def __init__(
        self, kernel: Kernel = 'polynomial', variance: float | str = 'image', loss_weight: float = 50.0
    ) -> None:
        super().__init__(loss_weight)
        _check_kernel(kernel, variance)
        self.kernel: Kernel = kernel
        self.variance = variance

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`nst_loss` of two feature maps."""
        return self.loss_weight * nst_loss(student, teacher, self.kernel, self.variance)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        variance = repr(self.variance) if isinstance(self.variance, str) else f'{self.variance:g}'
        return f'kernel={self.kernel!r}, variance={variance}, {super().extra_repr()}'
