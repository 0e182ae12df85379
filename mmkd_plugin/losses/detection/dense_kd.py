"""Distillation of the class scores of dense heads: sigmoid KD, and quality focal loss with the teacher's scores."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...options import check_number
from ..base import check_temperature, full_precision
from ..gather import mean_of_processes
from .dense import DenseHeadLoss, Positions, by_anchor, check_levels

Normalizer = Literal['positives', 'confident']


@full_precision
def sigmoid_kd_loss(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, weights: Tensor | None = None
) -> Tensor:
    r"""KL divergence of every class's own yes or no, from the teacher's to the student's, times T squared, summed.

    G. Hinton, O. Vinyals, J. Dean, arXiv 1503.02531, for classes that do not exclude each other: with
    ``q = sigmoid(z / T)``, ``T**2 * sum [q_t log(q_t / q_s) + (1 - q_t) log((1 - q_t) / (1 - q_s))]``. A constant added
    to the logits changes it, unlike that of a softmax.

    Args:
        student: Logits of any shape.
        teacher: Logits of the same shape, taken as constant.
        temperature: Softening T > 0 (dimensionless).
        weights: Of each value, such as broadcast.

    Returns:
        Scalar, in nats times T squared: a sum, which the caller divides.

    Raises:
        ValueError: If the shapes differ, or the temperature is not a finite number > 0.

    Example:
        >>> import torch
        >>> z_t = torch.tensor([3.0]).log()
        >>> round(sigmoid_kd_loss(torch.zeros(1), z_t).item(), 6)
        0.130812
    """
    _check_same(student, teacher)
    temperature = check_temperature(temperature)
    with torch.no_grad():
        z_t = teacher / temperature
        yes_t, no_t, q_t = F.logsigmoid(z_t), F.logsigmoid(-z_t), z_t.sigmoid()
    z_s = student / temperature
    divergence = q_t * (yes_t - F.logsigmoid(z_s)) + (1 - q_t) * (no_t - F.logsigmoid(-z_s))
    return (divergence if weights is None else divergence * weights).sum() * temperature**2


@full_precision
def qfl_kd_loss(student: Tensor, teacher: Tensor, beta: float = 2.0, weights: Tensor | None = None) -> Tensor:
    r"""Quality focal loss whose targets are the teacher's scores, summed.

    X. Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv 2006.04388, equation 6, with the teacher's ``q_t`` in
    place of a box's IoU: ``sum |q_t - q_s|**beta * BCE(z_s, q_t)``, q being sigmoids. 0 where both agree.

    Args:
        student: Logits of any shape.
        teacher: Logits of the same shape, taken as constant.
        beta: Exponent >= 1.
        weights: Of each value, such as broadcast.

    Returns:
        Scalar, in nats: a sum, which the caller divides.

    Raises:
        ValueError: If the shapes differ, or beta is less than 1.

    Example:
        >>> import torch
        >>> z_t = torch.tensor([3.0]).log()
        >>> [round(qfl_kd_loss(torch.zeros(1), z_t, beta).item(), 6) for beta in (1.0, 2.0)]
        [0.173287, 0.043322]
    """
    _check_same(student, teacher)
    beta = check_number(beta, 'beta', low=1.0)
    q_t = teacher.detach().sigmoid()
    focus = (q_t - student.sigmoid()).abs()
    entropy = F.binary_cross_entropy_with_logits(student, q_t, reduction='none')
    values = (focus.square() if beta == 2 else focus**beta) * entropy
    return (values if weights is None else values * weights).sum()


def _check_same(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} given, expected logits of one shape'
        )


class _DenseScoreLoss(DenseHeadLoss):
    """What both losses on class scores share: which positions count, and what their sum is divided by."""

    def __init__(self, positions: Positions, threshold: float, normalizer: Normalizer, loss_weight: float) -> None:
        super().__init__(positions, threshold, loss_weight)
        if normalizer not in ('positives', 'confident'):
            raise ValueError(f"normalizer={normalizer!r} given, expected 'positives' or 'confident'")
        self.normalizer = normalizer

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], assignments: Sequence[Tensor]) -> Tensor:
        """The weighted sum over positions and classes, divided.

        Args:
            student: Logits of each level, (N, A*K, H, W).
            teacher: The same, taken as constant.
            assignments: Class of each position, background K: level by level, then by image, row, column and anchor.

        Raises:
            ValueError: If levels differ, or these are not the assignments of all of them.
        """
        check_levels([level.shape for level in student], [level.shape for level in teacher], 1)
        priors = self.count_priors(student, assignments)
        positive = self.positives(student, assignments, priors, student[0].size(1) // priors)
        asked = 'confident' in (self.positions, self.normalizer)
        confident = self.confident(teacher, priors) if asked else None
        counted = confident if self.normalizer == 'confident' and confident else positive
        count = mean_of_processes(torch.stack([level.sum() for level in counted]).sum().to(torch.float32))
        chosen = {'positive': positive, 'confident': confident}.get(self.positions)
        values = []
        for number, (s, t) in enumerate(zip(by_anchor(student, priors), by_anchor(teacher, priors), strict=True)):
            weights = None if chosen is None else chosen[number][:, :, None]
            values.append(self.compare(s, t, weights))
        return self.loss_weight * torch.stack(values).sum() / count.clamp_min(1)

    def compare(self, student: Tensor, teacher: Tensor, weights: Tensor | None) -> Tensor:
        """The sum over one level (N, A, K, H, W)."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'normalizer={self.normalizer!r}, {super().extra_repr()}'


class DenseKDLoss(_DenseScoreLoss):
    """KD of the class scores of dense heads that take sigmoids, see :func:`sigmoid_kd_loss`.

    RetinaNet, FCOS, ATSS, GFL, RTMDet and RPNs; also on the centerness of FCOS and ATSS (``bbox_head[2]``). Both heads
    must score the same places. The sum over positions and classes is divided by the number of positives.

    Args:
        temperature: Softening T > 0 (dimensionless).
        positions: Which count: ``all``, the student's ``positive`` ones, or the teacher's ``confident`` ones.
        threshold: Of confident positions, in (0, 1].
        normalizer: What the sum is divided by: the number of the student's ``positives``, or of the teacher's
            ``confident`` positions; the mean over processes, at least 1.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        positions: Positions = 'all',
        threshold: float = 0.5,
        normalizer: Normalizer = 'positives',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(positions, threshold, normalizer, loss_weight)
        self.temperature = check_temperature(temperature)

    def compare(self, student: Tensor, teacher: Tensor, weights: Tensor | None) -> Tensor:
        """The sum over one level (N, A, K, H, W)."""
        value: Tensor = sigmoid_kd_loss(student, teacher, self.temperature, weights)
        return value

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'temperature={self.temperature:g}, {super().extra_repr()}'


class QFLKDLoss(_DenseScoreLoss):
    """KD of quality scores as GFL's, by its own loss with the teacher's scores as targets, see :func:`qfl_kd_loss`.

    Any dense head that takes sigmoids will do. ``beta=1, loss_weight=1`` on all positions, divided by the number of
    positives, is the classification part of BCKD (L. Yang et al., ICCV 2023, arXiv 2308.14286); GFL's own beta is 2.

    Args:
        beta: Exponent >= 1 of the scores' difference.
        positions: Which count: ``all``, the student's ``positive`` ones, or the teacher's ``confident`` ones.
        threshold: Of confident positions, in (0, 1].
        normalizer: What the sum is divided by, as of :class:`DenseKDLoss`.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    def __init__(
        self,
        beta: float = 2.0,
        positions: Positions = 'all',
        threshold: float = 0.5,
        normalizer: Normalizer = 'positives',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(positions, threshold, normalizer, loss_weight)
        self.beta = check_number(beta, 'beta', low=1.0)

    def compare(self, student: Tensor, teacher: Tensor, weights: Tensor | None) -> Tensor:
        """The sum over one level (N, A, K, H, W)."""
        value: Tensor = qfl_kd_loss(student, teacher, self.beta, weights)
        return value

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'beta={self.beta:g}, {super().extra_repr()}'
