"""KD: soft targets (Hinton, Vinyals, Dean)."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ...options import check_bool
from ..base import DistillLoss, check_logits, check_temperature, full_precision
from .standardize import standardize_logits


@full_precision
def kd_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0, standardize: bool = False) -> Tensor:
    r"""KL divergence from the teacher's softened prediction to the student's, times T squared.

    G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", NIPS 2014
    workshop, arXiv 1503.02531. ``T**2 / N * sum_n KL(softmax(z_t / T) || softmax(z_s / T))``.

    Args:
        student: Logits (N, C).
        teacher: Logits (N, C); taken as constant.
        temperature: Softening T > 0 (dimensionless).
        standardize: Compare the z-scores of the logits, see :func:`standardize_logits`; needs three classes.

    Returns:
        Scalar, in nats times T squared, mean over the batch; 0 for an empty batch.

    Raises:
        ValueError: If the shapes differ, the temperature is not a finite number > 0, or there are fewer than
            three classes to standardise.

    Example:
        >>> import torch
        >>> z_t = torch.tensor([[2.0, 1.0]]).log()
        >>> round(kd_loss(torch.zeros(1, 2), z_t, temperature=1.0).item(), 6)
        0.056633
    """
    check_logits(student, teacher)
    temperature = check_temperature(temperature)
    if standardize:
        student, teacher = standardize_logits(student), standardize_logits(teacher.detach())
    log_p_s = F.log_softmax(student / temperature, dim=1)
    log_p_t = F.log_softmax(teacher.detach() / temperature, dim=1)
    divergence = F.kl_div(log_p_s, log_p_t, reduction='sum', log_target=True)
    return divergence * (temperature**2 / max(len(student), 1))


class KDLoss(DistillLoss):
    """KD on logits, see :func:`kd_loss`.

    Published recipes: CIFAR-100 ``temperature=4, loss_weight=0.9`` with task loss weight 0.1;
    ImageNet ``temperature=1, loss_weight=0.5`` with task loss weight 0.5. With ``standardize``:
    ``temperature=2, loss_weight=9`` with task loss weight 0.1 (CIFAR-100) or 1 (ImageNet).

    Args:
        temperature: Softening T > 0 (dimensionless).
        loss_weight: Factor on the value.
        standardize: Compare z-scores; needs a task loss beside it, which sets the scale of the logits, and
            a lower temperature where there are few classes, see :func:`standardize_logits`.

    Raises:
        ValueError: If the temperature is not positive, ``standardize`` is no boolean or the weight is negative.
    """

    compares_logits: ClassVar[bool] = True

    def __init__(self, temperature: float = 4.0, loss_weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__(loss_weight)
        self.temperature = check_temperature(temperature)
        self.standardize = check_bool(standardize, 'standardize')

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`kd_loss` of two (N, C) logit tensors."""
        return self.loss_weight * kd_loss(student, teacher, self.temperature, self.standardize)

    def top_k_temperature(self) -> float | None:
        """Its own; None with ``standardize``, which takes mean and deviation of all scores."""
        return None if self.standardize else self.temperature

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'temperature={self.temperature:g}, standardize={self.standardize}, {super().extra_repr()}'
