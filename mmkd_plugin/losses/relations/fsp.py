"""FSP: flow of solution procedure (Yim et al.)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import full_precision
from .layers import LayerRelationLoss, check_layers

_POOLS: dict[str, Any] = {'max': F.adaptive_max_pool2d, 'average': F.adaptive_avg_pool2d}


@full_precision
def fsp_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], pool: str = 'max') -> Tensor:
    r"""Squared differences of two networks' FSP matrices, which hold how channels of a layer go with those of the next.

    J. Yim, D. Joo, J. Bae, J. Kim, "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and
    Transfer Learning", CVPR 2017 (no arXiv number). Of two layers of one network, with m and n channels at the same
    h*w positions p,

    ``G[i, j] = 1 / (h w) * sum_p F1[i, p] F2[j, p]``

    and the value is the sum over pairs of consecutive layers of ``1 / (N m n) * ||G_s - G_t||^2``. Deviation: the mean
    over the entries of G and the sum over pairs, with equal weights, are the form of the CRD benchmark's code
    (RepDistiller), where the weight is 1; the paper sums over entries, so that a weight of its form is m*n times
    smaller, for each pair another one.

    Args:
        student: Two or more maps (N, C_l, H, W), of any sizes; of a pair, the larger map is pooled down.
        teacher: As many maps with the same channels, taken as constant; sizes may be other ones.
        pool: ``max`` (the paper) or ``average`` (RepDistiller).

    Returns:
        Scalar, in units of activations to the fourth power, mean over the batch; 0 for an empty batch.

    Raises:
        ValueError: If the layers do not correspond, or ``pool`` is unknown.

    Example:
        >>> import torch
        >>> ones = [torch.ones(2, 3, 4, 4), torch.ones(2, 5, 2, 2)]  # every entry of G is 1
        >>> fsp_loss([3 * ones[0], ones[1]], ones).item()  # G is bilinear: (3 - 1)^2
        4.0
    """
    _check_pool(pool)
    check_layers([x.shape for x in student], [x.shape for x in teacher])
    flows = (
        _flow(*pair_s, pool) - _flow(*pair_t, pool)
        for pair_s, pair_t in zip(pairwise(student), pairwise([x.detach() for x in teacher]), strict=True)
    )
    return torch.stack([flow.square().sum() / max(flow.numel(), 1) for flow in flows]).sum()


def _flow(first: Tensor, second: Tensor, pool: str) -> Tensor:
    """The FSP matrices (N, m, n)."""
    size = min(first.size(2), second.size(2)), min(first.size(3), second.size(3))
    a, b = (x if x.shape[2:] == size else _POOLS[pool](x, size) for x in (first, second))
    return a.flatten(2) @ b.flatten(2).mT / (size[0] * size[1])


def _check_pool(pool: str) -> None:
    if not isinstance(pool, str) or pool not in _POOLS:
        raise ValueError(f"pool={pool!r} given, expected 'max' or 'average'")


class FSPLoss(LayerRelationLoss):
    """FSP, see :func:`fsp_loss`; ``on`` lists the layers in their order, such as the ends of stages.

    Values grow with the fourth power of activations, so that a pair with strong ones outweighs the rest. Deviation: the
    paper trains the student by this loss first and by the labels alone afterwards; here it stands beside the task loss
    (``schedule`` and ``task_loss`` make stages).

    Args:
        pool: ``max`` or ``average``, for layers of different sizes.
        connector: ``conv_bn`` for channels that differ: a learnable 1x1 convolution with batch norm at each layer of
            the student, which the paper does not have.
        loss_weight: Factor on the value; 1 is RepDistiller's in the first stage.

    Raises:
        ValueError: If an argument is unknown or the weight is negative.
    """

    def __init__(self, pool: str = 'max', connector: str | None = None, loss_weight: float = 1.0) -> None:
        super().__init__(connector, loss_weight)
        _check_pool(pool)
        self.pool = pool

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Weighted :func:`fsp_loss` of two lists of maps."""
        return self.loss_weight * fsp_loss(self.connected(student, teacher), teacher, self.pool)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'pool={self.pool!r}, {super().extra_repr()}'
