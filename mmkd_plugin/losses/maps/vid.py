"""VID: variational information distillation, the teacher's maps predicted with a variance (Ahn et al.)."""

from collections.abc import Sequence
from itertools import pairwise
from math import expm1, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...options import check_number
from ..base import DistillLoss, full_precision
from ..shapes import check_maps, pool_to_smaller


@full_precision
def vid_loss(mean: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    r"""Negative log-likelihood of the teacher's map under normal distributions, up to a constant.

    S. Ahn, S. X. Hu, A. Damianou, N. D. Lawrence, Z. Dai, "Variational Information Distillation for Knowledge
    Transfer", CVPR 2019, arXiv 1904.05835. Maximising the likelihood maximises a lower bound of the mutual information
    of both maps. With a variance for each channel:

    ``mean over n, c, h, w of ((t - mu)**2 / sigma_c**2 + log sigma_c**2) / 2``

    The usual weight of 1 belongs to this mean (the paper has the sum).

    Args:
        mean: mu, what the regressor makes of the student's map, (N, C, H, W).
        teacher: (N, C, H, W), taken as constant.
        variance: sigma squared, (C,), > 0.

    Returns:
        Scalar, in nats for each element, mean over the batch; below 0 where variances below 1 are right; 0 for an
        empty batch.

    Raises:
        ValueError: If the shapes differ, or there is not one variance for each channel.

    Example:
        >>> import torch
        >>> t = torch.rand(2, 3, 4, 4)
        >>> [round(vid_loss(t + error, t, torch.full((3,), 5.0)).item(), 6) for error in (0, 1)]
        [0.804719, 0.904719]
    """
    if mean.ndim != 4 or mean.shape != teacher.shape or variance.shape != mean.shape[1:2]:
        raise ValueError(
            f'student {tuple(mean.shape)} (after the regressor), teacher {tuple(teacher.shape)} and variance '
            f'{tuple(variance.shape)} given, expected two maps (N, C, H, W) of equal shape and a variance (C,)'
        )
    squares = (teacher.detach() - mean).square().sum((0, 2, 3))
    count = mean.numel() // max(mean.size(1), 1)
    return (squares / variance + count * variance.log()).sum() / (2 * max(mean.numel(), 1))


class VIDLoss(DistillLoss):
    r"""VID, see :func:`vid_loss`, with a learnable regressor and a learnable variance for each teacher channel.

    The regressor is three 1x1 convolutions without bias, from the student's channels to the teacher's, with ReLUs in
    between. The variance is ``softplus(alpha) + eps``. Of maps of other sizes the larger is averaged down, before the
    regressor (as RepDistiller). alpha is a parameter and learns; mdistiller does not hand it to the optimizer, so that
    it stays at the initial variance there.

    Weight decay pulls alpha to 0, a variance of 0.69. To leave it out:
    ``optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'.alpha': dict(decay_mult=0)}))``.

    Args:
        init_variance: The variance at the beginning, > eps.
        eps: What the variance stays above.
        loss_weight: Factor on the value; 1 is RepDistiller's and mdistiller's.

    Raises:
        ValueError: If a variance is not above 0, the initial one not above ``eps``, or the weight negative.
    """

    alpha: Tensor

    def __init__(self, init_variance: float = 5.0, eps: float = 1e-5, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.eps = check_number(eps, 'eps', above=True)
        self.init_variance = check_number(init_variance, 'init_variance', low=self.eps, above=True)
        self.regressor: nn.Module = nn.Identity()

    def build_connectors(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        """Make the regressor and the variance.

        Raises:
            ValueError: If these are not two maps.
        """
        if len(student) != 4 or len(teacher) != 4:
            raise ValueError(
                f'student {tuple(student)} and teacher {tuple(teacher)} given, expected two maps (N, C, H, W)'
            )
        widths = student[1], teacher[1], teacher[1], teacher[1]
        convs = [nn.Conv2d(a, b, 1, bias=False) for a, b in pairwise(widths)]
        self.regressor = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])
        self.alpha = nn.Parameter(torch.full((teacher[1],), _inverse_softplus(self.init_variance - self.eps)))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`vid_loss` of two feature maps."""
        check_maps(student, teacher)
        student, teacher = pool_to_smaller(student, teacher)
        variance = F.softplus(self.alpha) + self.eps
        return self.loss_weight * vid_loss(self.regressor(student), teacher, variance)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'init_variance={self.init_variance:g}, eps={self.eps:g}, {super().extra_repr()}'


def _inverse_softplus(value: float) -> float:
    """log(e^value - 1), for large values too."""
    return value + log(-expm1(-value)) if value > 1 else log(expm1(value))
