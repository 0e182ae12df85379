"""LwF: an older network's classes, while its successor learns new ones (Li, Hoiem)."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..base import DistillLoss, check_temperature, full_precision

FORMS = ('cross_entropy', 'kl')


@full_precision
def lwf_loss(student: Tensor, teacher: Tensor, temperature: float = 2.0, form: str = 'cross_entropy') -> Tensor:
    r"""How far the student's prediction among the old classes is from the older network's.

    Z. Li, D. Hoiem, "Learning without Forgetting", ECCV 2016, arXiv 1606.09282, equations 2 and 3:
    ``-1/N sum_n sum_c p_nc log q_nc`` with probabilities raised to 1/T and renormalised, which are ``softmax(z / T)``.
    The softmax goes over the old classes alone; over all of them, the new ones' labels would fight it. There is no
    factor T squared, as in the paper and in public codes.

    Args:
        student: Logits (N, C), where the first C_old classes are the old ones.
        teacher: Logits (N, C_old) of the older network; taken as constant.
        temperature: Softening T > 0 (dimensionless).
        form: ``cross_entropy`` (the paper's), or ``kl``, which is less by the entropy of the older prediction: the same
            gradient, and 0 where both agree.

    Returns:
        Scalar, in nats, mean over the batch; 0 for an empty batch.

    Raises:
        ValueError: If these are no logits, the student has fewer classes, the form is unknown, or the temperature is
            not a finite number > 0.

    Example:
        >>> import torch
        >>> old = torch.tensor([[2.0, 1.0]])
        >>> [round(lwf_loss(torch.zeros(1, 3), old, 2.0, form).item(), 7) for form in FORMS]
        [0.6931472, 0.0302999]
    """
    check_old_columns(student, teacher)
    temperature, form = check_temperature(temperature), _check_form(form)
    log_q = F.log_softmax(student[:, : teacher.size(1)] / temperature, dim=1)
    log_p = F.log_softmax(teacher.detach() / temperature, dim=1)
    terms = log_p.exp() * ((log_p - log_q) if form == 'kl' else -log_q)
    return terms.sum() / max(len(student), 1)


def check_old_columns(student: Tensor, teacher: Tensor) -> None:
    """Check that the teacher's classes may be the first ones of the student.

    Raises:
        ValueError: If the logits are not (N, C) and (N, C_old) with C_old <= C.
    """
    fits = student.ndim == teacher.ndim == 2 and len(student) == len(teacher) and student.size(1) >= teacher.size(1)
    if not fits:
        raise ValueError(
            f'student logits {tuple(student.shape)} and those of the older network {tuple(teacher.shape)} given, '
            'expected (N, C) and (N, C_old), where the first C_old of the C classes are the old ones'
        )


def _check_form(form: str) -> str:
    if form not in FORMS:
        raise ValueError(f'form={form!r} given, expected one of {", ".join(map(repr, FORMS))}')
    return form


class LwFLoss(DistillLoss):
    """LwF on logits, see :func:`lwf_loss`.

    The teacher is the older network, with fewer classes; they are the first ones of the student, in the same order,
    which is checked against the training data where its checkpoint names them. Where tasks follow each other, each step
    has the network of the step before as its teacher, which knows all classes so far. Detectors have their background
    in the last column: :class:`ILODLoss` is for them.

    Args:
        temperature: Softening T > 0 (dimensionless).
        loss_weight: Factor on the value: 1 in the paper; public codes have 0.5, 1 and 3.
        form: ``cross_entropy`` or ``kl``.

    Raises:
        ValueError: If an argument is not one of these.
    """

    compares_logits: ClassVar[bool] = True
    takes_rois: ClassVar[bool] = False

    def __init__(self, temperature: float = 2.0, loss_weight: float = 1.0, form: str = 'cross_entropy') -> None:
        super().__init__(loss_weight)
        self.temperature = check_temperature(temperature)
        self.form = _check_form(form)

    def prepare(self, facts: Any) -> None:
        """Compare the classes of the older network with those of the data."""
        for side, classes in facts.classes.items():
            facts.data.check_old(classes, side)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`lwf_loss` of logits (N, C) and (N, C_old)."""
        return self.loss_weight * lwf_loss(student, teacher, self.temperature, self.form)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'temperature={self.temperature:g}, form={self.form!r}, {super().extra_repr()}'
