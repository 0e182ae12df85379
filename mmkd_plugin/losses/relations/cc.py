"""CC: correlation congruence (Peng et al.)."""

from collections.abc import Sequence
from math import exp
from typing import Literal

import torch
from torch import Tensor, nn

from ...options import check_number, check_whole
from ..base import full_precision
from ..gather import SampleRelationLoss
from ..shapes import as_vectors, unit_vectors

Form = Literal['kernel', 'embedded']


def correlation(vectors: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Correlations between samples: a Gaussian kernel on unit vectors, as a Taylor series.

    Args:
        vectors: (N, D), of any length.
        gamma: Of ``exp(-gamma * |a - b|**2)``.
        order: The highest power of the cosine; with more of them, the kernel itself.

    Returns:
        (N, N): ``exp(-2 gamma) * sum_p (2 gamma cos)**p / p!`` for p from 0 to the order.
    """
    unit = unit_vectors(vectors)
    exponent = 2 * gamma * (unit @ unit.mT)
    series = torch.ones_like(exponent)
    for power in range(order, 0, -1):  # Horner
        series = 1 + exponent / power * series
    return exp(-2 * gamma) * series


@full_precision
def cc_loss(student: Tensor, teacher: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Mean squared difference of the correlations between samples.

    B. Peng, X. Jin, J. Liu, D. Li, Y. Wu, Y. Liu, S. Zhou, Z. Zhang, "Correlation Congruence for
    Knowledge Distillation", ICCV 2019, arXiv 1904.01802: ``1 / N**2 * ||C_s - C_t||_F**2`` with the
    Gaussian kernel's Taylor series for C, see :func:`correlation`. Of the paper's kernels, the Gaussian one
    alone is here. torchdistill has the same kernel with the norm not squared and vectors not of length 1;
    its weight of 0.003 is the only one that is known beside a kernel.

    Args:
        student: (N, D_s) or (N, C_s, H_s, W_s); maps are averaged over their positions.
        teacher: (N, D_t) or (N, C_t, H_t, W_t), taken as constant; its dimension may be another.
        gamma: Of the kernel, > 0.
        order: Of the series, >= 1.

    Returns:
        Scalar >= 0, dimensionless, mean over pairs of samples; 0 for an empty batch.

    Raises:
        ValueError: If these are no vectors or maps of the same samples, or an argument is out of range.

    Example:
        >>> round(cc_loss(torch.ones(2, 3), torch.eye(2)).item(), 6)  # alike, and at right angles
        0.126629
    """
    gamma, order = check_number(gamma, 'gamma', above=True), check_whole(order, 'order', low=1)
    student, teacher = as_vectors(student, teacher.detach())
    difference = correlation(student, gamma, order) - correlation(teacher, gamma, order)
    return difference.square().sum() / max(difference.numel(), 1)


@full_precision
def cc_embedded_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Products of what is wrong in consecutive samples: RepDistiller's CC, from the paper's authors.

    With the embeddings e of both sides and ``d = |e_s - e_t|``, the value is
    ``1 / (N - 1) * sum_i sum_k d[i, k] * d[i + 1, k]``. It depends on the order of the samples, and is 0
    where every second one is right.

    Args:
        student: (N, D), embedded.
        teacher: (N, D), embedded; its embedding learns, so that it is not taken as constant here.

    Returns:
        Scalar >= 0, mean over consecutive samples; 0 for less than two.

    Raises:
        ValueError: If the shapes differ or are not (N, D).

    Example:
        >>> cc_embedded_loss(torch.zeros(3, 2), torch.tensor([[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]])).item()
        4.0
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} given, expected two embeddings of the '
            'same shape (N, D)'
        )
    wrong = (student - teacher).abs()
    return (wrong[:-1] * wrong[1:]).sum() / max(len(wrong) - 1, 1)


class CCLoss(SampleRelationLoss):
    """CC, see :func:`cc_loss` and :func:`cc_embedded_loss`; usually on the pooled vector.

    Samples are compared with those of their own process's batch, unless ``gather=True``. With ``form='embedded'`` the
    vectors of both sides go through a linear layer each. Both layers learn, and no gradient reaches the teacher.

    Args:
        form: ``kernel`` is the paper's, without learnable parts. ``embedded`` is that of RepDistiller, which published
            figures on CIFAR-100 belong to.
        gamma: Of the kernel, > 0; for ``kernel``.
        order: Of its Taylor series, >= 1; for ``kernel``.
        embed_dim: Of the embedding, >= 1; for ``embedded``.
        gather: Relate the samples of all processes.
        loss_weight: Factor on the value. 0.003 is torchdistill's, beside its kernel form; 0.02 is RepDistiller's, for
            ``embedded``. By default the kernel form's value is below 0.6, so that 0.003 of it hardly teaches.

    Raises:
        ValueError: If an argument is unknown or out of range, or the weight is negative.
    """

    def __init__(
        self,
        form: Form = 'kernel',
        gamma: float = 0.4,
        order: int = 2,
        embed_dim: int = 128,
        gather: bool = False,
        loss_weight: float = 0.003,
    ) -> None:
        super().__init__(gather, loss_weight)
        if form not in ('kernel', 'embedded'):
            raise ValueError(f"form={form!r} given, expected 'kernel' or 'embedded'")
        self.form: Form = form
        self.gamma = check_number(gamma, 'gamma', above=True)
        self.order = check_whole(order, 'order', low=1)
        self.embed_dim = check_whole(embed_dim, 'embed_dim', low=1)
        self.embed_student: nn.Module = nn.Identity()
        self.embed_teacher: nn.Module = nn.Identity()

    def build_connectors(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        """Make the embeddings, if the form has them.

        Raises:
            ValueError: If these are no vectors or maps.
        """
        if self.form == 'kernel':
            return
        if {len(student), len(teacher)} - {2, 4}:
            raise ValueError(
                f'student {tuple(student)} and teacher {tuple(teacher)} given, expected vectors (N, D) or feature maps '
                '(N, C, H, W)'
            )
        self.embed_student = nn.Linear(student[1], self.embed_dim)
        self.embed_teacher = nn.Linear(teacher[1], self.embed_dim)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`cc_loss`, or :func:`cc_embedded_loss`, of two tensors of vectors or maps."""
        student, teacher = self.joined(student, teacher)
        if self.form == 'kernel':
            return self.loss_weight * cc_loss(student, teacher, self.gamma, self.order)
        student, teacher = as_vectors(student, teacher.detach())
        return self.loss_weight * cc_embedded_loss(self.embed_student(student), self.embed_teacher(teacher))

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return (
            f'form={self.form!r}, gamma={self.gamma:g}, order={self.order}, embed_dim={self.embed_dim}, '
            f'{super().extra_repr()}'
        )
