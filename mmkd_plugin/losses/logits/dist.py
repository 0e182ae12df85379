"""DIST: correlations between and inside classes (Huang et al.)."""

from typing import ClassVar

from torch import Tensor

from ...options import check_number
from ..base import check_logits, check_temperature, full_precision
from ..gather import SampleRelationLoss

_EPS = 1e-8


@full_precision
def dist_loss(
    student: Tensor, teacher: Tensor, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0
) -> Tensor:
    r"""Pearson correlation of two predictions, by sample (inter) and by class (intra).

    T. Huang, S. You, F. Wang, C. Qian, C. Xu, "Knowledge Distillation from A Stronger Teacher", NeurIPS
    2022, arXiv 2205.10536. With ``Y = softmax(z / T)`` (N, C) and rho the correlation,

    ``T**2 * [beta * mean_n (1 - rho(Y_s[n, :], Y_t[n, :])) + gamma * mean_c (1 - rho(Y_s[:, c], Y_t[:, c]))]``

    What is correlated is ``Y - 1/C`` from ``exp(z - max) - 1``, which keeps its digits where a row is almost
    uniform (many classes, large T). The product of two lengths counts as at least 1e-8, where the authors'
    code adds 1e-8. What does not vary (a uniform row; a column of equal predictions, such as that of a
    batch of one) correlates with nothing: it adds 1 and has no gradient, where the code's is up to 1e8.

    The mean over classes has equal weights, so that columns of classes that are not in the batch count as
    much as others. With two classes each row's correlation is a sign, and with two samples each column's.

    Args:
        student: Logits (N, C), C >= 2.
        teacher: Logits (N, C); taken as constant.
        beta: Weight of the inter-class part, within samples.
        gamma: Weight of the intra-class part, over the samples of the batch.
        temperature: Softening T > 0 (dimensionless).

    Returns:
        Scalar in [0, 2 T**2 (beta + gamma)], dimensionless; 0 for an empty batch.

    Raises:
        ValueError: If the shapes do not fit or the temperature is not a finite number > 0.

    Example:
        >>> import torch
        >>> y_s = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
        >>> y_t = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
        >>> [round(dist_loss(y_s.log(), y_t.log(), *parts).item(), 4) for parts in ((1, 0), (0, 1))]
        [0.6728, 0.4667]
    """
    check_logits(student, teacher)
    temperature = check_temperature(temperature)
    if student.size(1) < 2:
        raise ValueError(f'logits {tuple(student.shape)} given, expected at least two classes')
    if not len(student):
        return student.sum()  # 0, with a graph
    y_s, y_t = (_centred_softmax(logits / temperature) for logits in (student, teacher.detach()))
    inter = (1 - _cosine(y_s, y_t, 1)).mean()
    intra = (1 - _cosine(_centred_columns(y_s), _centred_columns(y_t), 0)).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def _centred_softmax(logits: Tensor) -> Tensor:
    """``softmax - 1/C``, exactly 0 for equal logits."""
    excess = (logits - logits.detach().amax(1, keepdim=True)).expm1()
    mean = excess.mean(1, keepdim=True)
    return (excess - mean) / ((1 + mean) * logits.size(1))


def _centred_columns(values: Tensor) -> Tensor:
    """Less the mean over the batch, exactly 0 for equal rows."""
    values = values - values[:1].detach()
    return values - values.mean(0)


def _cosine(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Of centred vectors: their correlation; 0 without gradient where one has no length."""
    lengths = a.norm(dim=dim) * b.norm(dim=dim)
    return (a * b).sum(dim) * (lengths > 0) / lengths.clamp_min(_EPS)


class DISTLoss(SampleRelationLoss):
    """DIST on logits, see :func:`dist_loss`.

    The published weight 2 is that of the code, with ``beta = gamma = 1``; the paper's 2 for ``beta`` and
    ``gamma`` is the same product. Task loss weight 1; T is 1 on ImageNet and 4 on CIFAR-100, warm-up none.

    The intra-class part relates the samples inside each process's batch unless ``gather=True``; in batches of
    fewer than about 64 it is noisy. On the RoIs of a detector most of its columns are close to 0 and count
    like the others.

    Args:
        beta: Weight of the inter-class part.
        gamma: Weight of the intra-class part.
        temperature: Softening T > 0 (dimensionless).
        gather: Relate the samples of all processes.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is out of range.
    """

    compares_logits: ClassVar[bool] = True

    def __init__(
        self,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 1.0,
        gather: bool = False,
        loss_weight: float = 2.0,
    ) -> None:
        super().__init__(gather, loss_weight)
        self.beta = check_number(beta, 'beta')
        self.gamma = check_number(gamma, 'gamma')
        self.temperature = check_temperature(temperature)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`dist_loss` of two (N, C) logit tensors."""
        student, teacher = self.joined(student, teacher)
        return self.loss_weight * dist_loss(student, teacher, self.beta, self.gamma, self.temperature)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'beta={self.beta:g}, gamma={self.gamma:g}, temperature={self.temperature:g}, {super().extra_repr()}'
