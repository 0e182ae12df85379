"""KD from several teachers at once: the mean of their predictions (Hinton et al.), and one weighted by confidence."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import DistillLoss, check_logits, check_temperature, full_precision
from ..teacher_weights import TeacherWeights, Weights, check_weights
from .dkd import check_labels


@full_precision
def ensemble_kd_loss(
    student: Tensor, teachers: Sequence[Tensor], weights: Tensor | None = None, temperature: float = 4.0
) -> Tensor:
    r"""KL divergence from the weighted mean of the teachers' softened predictions to the student's, times T squared.

    G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", NIPS 2014 workshop, arXiv
    1503.02531, section 1: of an ensemble, the soft targets may be the arithmetic mean of the predictive distributions.

    ``T**2 / N * sum_n KL(sum_m w_mn softmax(z_mn / T) || softmax(z_sn / T))``

    With one teacher it is :func:`kd_loss`, exactly. It is never above the weighted mean of the teachers' own
    :func:`kd_loss` (KL is convex), whose gradient it has: what the two differ by does not depend on the student.

    Args:
        student: Logits (N, C).
        teachers: Logits (N, C) each; taken as constant.
        weights: (M,), or (M, N) with weights for each sample, >= 0 and not all 0 over the M teachers; taken in
            proportion and as constant. None for equal ones.
        temperature: Softening T > 0 (dimensionless).

    Returns:
        Scalar, in nats times T squared, mean over the batch; 0 for an empty batch.

    Raises:
        ValueError: If there is no teacher, shapes differ, or the temperature is not a finite number > 0.

    Example:
        >>> import torch  # the mean of (2/3, 1/3) and (1/3, 2/3) is what the student says
        >>> z = torch.tensor([[2.0, 1.0]]).log()
        >>> abs(ensemble_kd_loss(torch.zeros(1, 2), [z, -z], temperature=1.0).item()) < 1e-6
        True
    """
    temperature = check_temperature(temperature)
    if not teachers:
        raise ValueError('no teacher given, expected one or more')
    for teacher in teachers:
        check_logits(student, teacher)
    log_p = F.log_softmax(torch.stack([teacher.detach() for teacher in teachers]) / temperature, dim=2)
    if weights is None:
        weights = log_p.new_full((len(teachers),), 1 / len(teachers))
    if weights.shape not in (log_p.shape[:1], log_p.shape[:2]):
        raise ValueError(
            f'weights {tuple(weights.shape)} given, expected {(len(teachers),)}, one for each teacher, or '
            f'{tuple(log_p.shape[:2])}, one for each teacher and sample'
        )
    weights = weights.detach().to(log_p)
    shares = (weights / weights.sum(0)).log()
    log_p_t = torch.logsumexp(log_p + (shares[:, None] if weights.ndim == 1 else shares)[:, :, None], dim=0)
    log_p_s = F.log_softmax(student / temperature, dim=1)
    divergence = F.kl_div(log_p_s, log_p_t, reduction='sum', log_target=True)
    return divergence * (temperature**2 / max(len(student), 1))


@full_precision
def confidence_weights(teachers: Sequence[Tensor], labels: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Weights of teachers for each sample: in proportion to the probability that a teacher gives the right class.

    Ours: no paper has this rule that we know of. ``w_mn = w_m p_mn(y_n) / sum_k w_k p_kn(y_n)``, with the softmax at
    T = 1: the posterior of the teachers, if w is the prior and one of them drew the label.

    Args:
        teachers: Logits (N, C) each; taken as constant.
        labels: Class indices (N,), integer.
        weights: (M,), >= 0, taken in proportion; None for equal ones.

    Returns:
        (M, N), which sum to 1 over the teachers, without gradient.

    Raises:
        ValueError: If there is no teacher, or the shapes do not fit.
        TypeError: If the labels are not integers.

    Example:
        >>> import torch  # 3/4 and 1/4 for the class
        >>> z = torch.tensor([[3.0, 1.0]]).log()
        >>> confidence_weights([z, -z], torch.tensor([0])).flatten()
        tensor([0.7500, 0.2500])
    """
    if not teachers:
        raise ValueError('no teacher given, expected one or more')
    for teacher in teachers:
        check_logits(teachers[0], teacher)
        check_labels(labels, teacher)
    log_p = F.log_softmax(torch.stack([teacher.detach() for teacher in teachers]), dim=2)
    of_class = log_p.gather(2, labels.long().expand(len(teachers), -1)[:, :, None])[:, :, 0]
    return (of_class if weights is None else of_class + weights.detach().to(of_class).log()[:, None]).softmax(0)


class EnsembleKDLoss(DistillLoss):
    """KD from the mean prediction of several teachers, see :func:`ensemble_kd_loss`: ``teachers=dict(a=..., b=...)``.

    Args:
        temperature: Softening T > 0 (dimensionless).
        weights: Of the teachers: ``uniform``, or a number >= 0 for each by its name, such as its accuracy, taken in
            proportion.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is unknown or out of range, or the weight is negative.
    """

    compares_logits: ClassVar[bool] = True
    sides: ClassVar[tuple[str, ...]] = ('student', 'teachers')

    def __init__(self, temperature: float = 4.0, weights: Weights = 'uniform', loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.temperature = check_temperature(temperature)
        self.weights = check_weights(weights)
        if weights == 'learned':
            raise ValueError(
                "weights='learned' given, expected 'uniform' or a number >= 0 for each teacher by its name: the mean "
                'of the teachers is taken as constant'
            )

    def build_connectors(self, student: Sequence[int], teachers: Mapping[str, Sequence[int]]) -> None:
        """Learn who teaches.

        Raises:
            ValueError: If weights are given for other teachers.
        """
        self.names = list(teachers)
        self.shares = TeacherWeights(self.weights, self.names)

    def forward(self, student: Tensor, teachers: Mapping[str, Tensor]) -> Tensor:
        """Weighted :func:`ensemble_kd_loss` of (N, C) logits and a dictionary of such."""
        logits = [teachers[name] for name in self.names]
        return self.loss_weight * ensemble_kd_loss(student, logits, self.shares(), self.temperature)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'temperature={self.temperature:g}, weights={self.weights!r}, {super().extra_repr()}'


class ConfidentEnsembleKDLoss(EnsembleKDLoss):
    """The same with weights for each sample, by the probability of its class, see :func:`confidence_weights`. Ours.

    A teacher that is wrong about an image counts little there, whatever it is worth elsewhere.

    Args:
        temperature: Softening T > 0 of the predictions (dimensionless); confidence is that at T = 1.
        weights: As in :class:`EnsembleKDLoss`, before confidence.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is unknown or out of range, or the weight is negative.
    """

    needs: ClassVar[tuple[str, ...]] = ('labels',)

    def forward(self, student: Tensor, teachers: Mapping[str, Tensor], labels: Any = None) -> Tensor:
        """Weighted :func:`ensemble_kd_loss` of (N, C) logits, a dictionary of such, and classes (N,)."""
        logits = [teachers[name] for name in self.names]
        for teacher in logits:
            check_logits(student, teacher)
        weights = confidence_weights(logits, labels, self.shares())
        return self.loss_weight * ensemble_kd_loss(student, logits, weights, self.temperature)
