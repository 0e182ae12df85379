"""DKD: decoupled knowledge distillation (Zhao et al.)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...options import check_bool, check_number
from ..base import DistillLoss, check_logits, check_temperature, full_precision
from .standardize import standardize_logits


@full_precision
def dkd_terms(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 4.0) -> tuple[Tensor, Tensor]:
    """The two parts of KD, per sample: target class (TCKD) and non-target classes (NCKD).

    They satisfy ``KL(p_t || p_s) = TCKD + (1 - p_t[label]) * NCKD``.

    The non-target distributions are log-softmaxes without the target's column, and the binary
    ones are sigmoids of (target logit - logsumexp of the others), so that nothing is ever the
    logarithm of an underflowed sum: saturated networks stay finite.

    Args:
        student: Logits (N, C), C >= 2.
        teacher: Logits (N, C); taken as constant.
        labels: Class indices (N,), integer, in [0, C).
        temperature: Softening T > 0 (dimensionless).

    Returns:
        TCKD and NCKD, each (N,), in nats.

    Raises:
        ValueError: If the shapes do not fit or the temperature is not a finite number > 0.
        TypeError: If the labels are not integers (mixup, cutmix and soft labels have no target).
    """
    check_logits(student, teacher)
    check_labels(labels, student)
    temperature = check_temperature(temperature)
    target = labels.long().view(-1, 1)
    margin_s, rest_s = _margin_and_rest(student / temperature, target)
    margin_t, rest_t = _margin_and_rest(teacher.detach() / temperature, target)
    # log p(target) = logsigmoid(margin), log p(not target) = logsigmoid(-margin)
    binary_s, binary_t = (F.logsigmoid(torch.stack([margin, -margin])) for margin in (margin_s, margin_t))
    tckd = F.kl_div(binary_s, binary_t, reduction='none', log_target=True).sum(0)
    nckd = F.kl_div(rest_s, rest_t, reduction='none', log_target=True).sum(1)
    return tckd, nckd


def _margin_and_rest(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """What the target is above the logsumexp of the others (N,), and their log-softmax (N, C).

    The target's column of the latter is so low that its probability is 0, and finite, so that 0 times it is 0.
    """
    others = logits.scatter(1, target, torch.finfo(logits.dtype).min / 2)
    rest = F.log_softmax(others, dim=1)
    # logsumexp = top - rest[top]: an offset common to all classes costs the margin no float32 digits
    top, where = others.max(1, keepdim=True)
    return (logits.gather(1, target) - top + rest.gather(1, where)).squeeze(1), rest


def dkd_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    standardize: bool = False,
) -> Tensor:
    """Weighted sum of TCKD and NCKD, times T squared, mean over the batch.

    B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang, "Decoupled Knowledge Distillation", CVPR 2022,
    arXiv 2203.08679.

    Args:
        student: Logits (N, C), C >= 2.
        teacher: Logits (N, C); taken as constant.
        labels: Class indices (N,), integer; the ground truth, not the teacher's choice.
        alpha: Weight of the target-class part.
        beta: Weight of the non-target part.
        temperature: Softening T > 0 (dimensionless).
        standardize: Compare the z-scores of the logits, see :func:`standardize_logits`; needs three classes.

    Returns:
        Scalar, in nats times T squared; 0 for an empty batch.

    Raises:
        ValueError: If the shapes do not fit, the temperature is not a finite number > 0, or there are fewer
            than three classes to standardise.
        TypeError: If the labels are not integers.

    Example:
        >>> z_t = torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> z_s = torch.tensor([[0.25, 0.5, 0.25]]).log()
        >>> round(dkd_loss(z_s, z_t, torch.tensor([0]), 1.0, 0.5, temperature=1.0).item(), 6)
        0.173287
    """
    if standardize:
        check_logits(student, teacher)
        student, teacher = standardize_logits(student), standardize_logits(teacher.detach())
    tckd, nckd = dkd_terms(student, teacher, labels, temperature)
    return (alpha * tckd + beta * nckd).sum() * (temperature**2 / max(len(tckd), 1))


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Check that there is one class for each row of logits.

    Raises:
        ValueError: If there are others, or a single class.
        TypeError: If labels are not integers.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(
            f'labels of dtype {labels.dtype} given, expected integers. Soft labels (mixup, cutmix, '
            'one-hot scores) have no target class: remove that augmentation or use KDLoss'
        )
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f'labels {tuple(labels.shape)} given, expected one class index for each of the '
            f'{logits.size(0)} rows of the logits {tuple(logits.shape)}'
        )
    if logits.size(1) < 2:
        raise ValueError(f'logits {tuple(logits.shape)} given, expected at least two classes')


class DKDLoss(DistillLoss):
    """DKD on logits, see :func:`dkd_loss`.

    Published recipes (task loss weight 1): CIFAR-100 ``temperature=4``, ``beta`` 2 to 8 by pair,
    20 epochs of linear warm-up; ImageNet ResNet34 to 18 ``temperature=1, beta=0.5``. With
    ``standardize``: ``temperature=2``, and ``alpha`` and ``beta`` times 9, which is ``loss_weight=9``.

    Args:
        alpha: Weight of the target-class part.
        beta: Weight of the non-target part.
        temperature: Softening T > 0 (dimensionless).
        loss_weight: Factor on the value.
        standardize: Compare z-scores; needs a task loss beside it, which sets the scale of the logits, and
            a lower temperature where there are few classes, see :func:`standardize_logits`.

    Raises:
        ValueError: If the temperature is not positive, ``standardize`` is no boolean or a weight is negative.
    """

    compares_logits: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ('labels',)

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        loss_weight: float = 1.0,
        standardize: bool = False,
    ) -> None:
        super().__init__(loss_weight)
        self.alpha = check_number(alpha, 'alpha')
        self.beta = check_number(beta, 'beta')
        self.temperature = check_temperature(temperature)
        self.standardize = check_bool(standardize, 'standardize')

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Weighted :func:`dkd_loss` of two (N, C) logit tensors and (N,) labels."""
        value = dkd_loss(student, teacher, labels, self.alpha, self.beta, self.temperature, self.standardize)
        return self.loss_weight * value

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return (
            f'alpha={self.alpha:g}, beta={self.beta:g}, temperature={self.temperature:g}, '
            f'standardize={self.standardize}, {super().extra_repr()}'
        )
