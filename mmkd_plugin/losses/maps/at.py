"""AT: attention transfer (Zagoruyko and Komodakis)."""

import torch.nn.functional as F
from torch import Tensor

from ...options import check_bool
from ..base import DistillLoss, full_precision
from ..shapes import check_maps, pool_to_smaller


def attention(features: Tensor, p: float = 2.0) -> Tensor:
    """Unit-length spatial attention: where the channels are large, sum over c of abs(F_c)^p.

    Args:
        features: (N, C, H, W).
        p: Power >= 1; larger weighs the strongest channels more.

    Returns:
        (N, H*W), each row of Euclidean length 1 (0 where a map is all zero).
    """
    energy = features.square() if p == 2 else features.abs().pow(p)
    return F.normalize(energy.sum(1).flatten(1), dim=1)


@full_precision
def at_loss(student: Tensor, teacher: Tensor, p: float = 2.0, squared: bool = True) -> Tensor:
    r"""Distance of two attention maps q.

    S. Zagoruyko, N. Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928.
    ``squared=True`` is the authors' code, which the usual weight of 1000 belongs to:
    ``1 / (N H W) * sum (q_s - q_t)**2``. ``squared=False`` is the paper's equation 2:
    ``1 / (2 N) * sum_n ||q_s - q_t||``. The absolute value makes odd powers an attention on
    pre-activations too.

    Args:
        student: (N, C_s, H_s, W_s).
        teacher: (N, C_t, H_t, W_t), taken as constant; the larger map is averaged down.
        p: Power of the activations, >= 1.
        squared: Which of the two forms.

    Returns:
        Scalar, dimensionless, mean over the batch; 0 for an empty batch.

    Raises:
        ValueError: If these are no feature maps of the same images, or ``p`` is below 1.

    Example:
        >>> import torch
        >>> left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
        >>> at_loss(left, right).item()  # disjoint: 2 / (H W)
        1.0
    """
    check_maps(student, teacher)
    _check_power(p)
    student, teacher = pool_to_smaller(student, teacher.detach())
    difference = attention(student, p) - attention(teacher, p)
    if squared:
        return difference.square().sum() / max(difference.numel(), 1)
    # vector_norm has the gradient 0 at 0, where a square root of a sum has none
    return difference.norm(dim=1).sum() / (2 * max(len(difference), 1))


def _check_power(p: float) -> None:
    # below 1 the slope at 0 is infinite, and after a ReLU there are many zeros
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 1 <= p < float('inf'):
        raise ValueError(f'p={p!r} given, expected a finite number >= 1')


class ATLoss(DistillLoss):
    """Attention transfer, see :func:`at_loss`; usually at the end of every stage.

    Args:
        p: Power of the activations, >= 1.
        squared: The authors' code (True) or the paper's equation (False).
        loss_weight: Factor on the value; 1000 is the usual one for ``squared=True``.

    Raises:
        ValueError: If the power is below 1 or the weight is negative.
    """

    def __init__(self, p: float = 2.0, squared: bool = True, loss_weight: float = 1000.0) -> None:
        super().__init__(loss_weight)
        _check_power(p)
        self.p, self.squared = float(p), check_bool(squared, 'squared')

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`at_loss` of two feature maps."""
        return self.loss_weight * at_loss(student, teacher, self.p, self.squared)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'p={self.p:g}, squared={self.squared}, {super().extra_repr()}'
