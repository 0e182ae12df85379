"""The logits graph of several teachers (Zhang and Peng), as this project reads it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...options import check_number, check_whole
from ..base import DistillLoss, check_logits, check_temperature, full_precision
from ..teacher_weights import TeacherWeights, Weights, check_weights

_LEAST_EPSILON = 0.05  # of the largest cost; with less, float32 does not hold the sums


@full_precision
def logits_graph_loss(
    student: Tensor,
    teachers: Sequence[Tensor],
    weights: Tensor | None = None,
    temperature: float = 4.0,
    cost: Tensor | None = None,
    epsilon: float = 0.1,
    iterations: int = 50,
) -> Tensor:
    r"""Weighted sum of the earth mover's distances from the student's softened prediction to the teachers'.

    C. Zhang, Y. Peng, "Better and Faster: Knowledge Transfer from Multiple Self-supervised Learning Tasks via Graph
    Distillation for Video Classification", IJCAI 2018, arXiv 1804.10069. What is established of the logits graph is
    that its vertices are the teachers' softened predictions and that the student's is matched to all of them by the
    earth mover's distance (EMD). The rest is this project's reading, since the exact loss, its edges, temperature and
    weight are in no source that we could read:

    ``1/N * sum_n sum_m w_m * EMD(p_m, p_s)``,  ``p = softmax(z / T)``

    Without a cost, moving any class to any other costs 1, and EMD is the total variation ``1/2 * sum_c |p_m - p_s|``,
    exactly. With one it is regularised by entropy (Sinkhorn): the debiased divergence
    ``OT(p_m, p_s) - OT(p_m, p_m) / 2 - OT(p_s, p_s) / 2`` of J. Feydy et al., AISTATS 2019, arXiv 1810.08278, which is
    0 for equal predictions, where plain Sinkhorn would blur them. Potentials are iterated in the logarithm, both sides
    at once, each time to the mean of the old one and the new; gradients go through all iterations.

    Args:
        student: Logits (N, C).
        teachers: Logits (N, C) each; taken as constant.
        weights: (teachers,), which sum to 1; None for equal ones.
        temperature: Softening T > 0 (dimensionless).
        cost: (C, C), symmetric, >= 0, with zeros in the diagonal: of moving a class to another. None for 1.
        epsilon: Weight of the entropy, as a part of the largest cost, >= 0.05; only with ``cost``.
        iterations: Of Sinkhorn; only with ``cost``.

    Returns:
        Scalar, in units of the cost, mean over the batch; 0 for an empty batch.

    Raises:
        ValueError: If there is no teacher, shapes differ, or a number is out of range.

    Example:
        >>> import torch  # certain of another class than one teacher, and of the same as the other
        >>> z = torch.tensor([[100.0, -100.0]])
        >>> logits_graph_loss(z, [-z, z], torch.tensor([0.25, 0.75]), temperature=1.0).item()
        0.25
    """
    temperature = check_temperature(temperature)
    epsilon, iterations = check_number(epsilon, 'epsilon', _LEAST_EPSILON), check_whole(iterations, 'iterations', 1)
    if not teachers:
        raise ValueError('no teacher given, expected one or more')
    for teacher in teachers:
        check_logits(student, teacher)
    p_s = (student / temperature).softmax(1)
    p_t = (torch.stack([teacher.detach() for teacher in teachers]) / temperature).softmax(2)
    if cost is None:
        distances = (p_t - p_s).abs().sum(2) / 2
    else:
        if cost.shape != (student.size(1), student.size(1)):
            raise ValueError(
                f'cost {tuple(cost.shape)} given, expected {(student.size(1), student.size(1))}, one for each pair of '
                'classes'
            )
        distances = _sinkhorn_divergence(p_t, p_s, cost.to(p_s), epsilon, iterations)
    by_teacher = distances.sum(1) / max(len(student), 1)
    return by_teacher.mean() if weights is None else weights.to(by_teacher) @ by_teacher


def _sinkhorn_divergence(teachers: Tensor, student: Tensor, cost: Tensor, epsilon: float, iterations: int) -> Tensor:
    """(M, N) of distributions (M, N, C) and (N, C)."""
    entropy = epsilon * cost.max()
    kernel = (-cost / entropy).exp()  # >= exp(-20), so that sums of products are held without looking for their largest
    of_teachers, of_student = _potentials(teachers, student, kernel, iterations)
    with torch.no_grad():
        own_of_teachers, _ = _potentials(teachers, teachers, kernel, iterations)
    own_of_student, _ = _potentials(student, student, kernel, iterations)
    gains = teachers * (of_teachers - own_of_teachers) + student * (of_student - own_of_student)
    return entropy * gains.sum(2)


def _potentials(a: Tensor, b: Tensor, kernel: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """What moving a to b costs at each class of a and of b, in units of the entropy."""

    def best(weights: Tensor, potential: Tensor) -> Tensor:
        return -((weights * potential.exp()) @ kernel).log()

    f, g = torch.zeros_like(a), torch.zeros_like(a)
    for _ in range(iterations):
        f, g = (f + best(b, g)) / 2, (g + best(a, f)) / 2
    return best(b, g), best(a, f)


class LogitsGraphLoss(DistillLoss):
    """The logits graph, see :func:`logits_graph_loss`: any number of teachers, by ``teachers=dict(a=..., b=...)``.

    Temperature and weight are ours; none is published that we could read. 16 is the square of the temperature, the
    factor that KD has for the size of its gradients.

    Args:
        temperature: Softening T > 0 (dimensionless).
        weights: Of the teachers: ``uniform``; a number >= 0 for each by its name, such as its accuracy, taken in
            proportion; or ``learned``, the softmax of learnable scores, which go to whom the student is nearest to.
        cost: Of moving a class to another: ``zero_one``, or a matrix (C, C) as nested lists, symmetric with zeros in
            the diagonal, such as distances between what embeds the classes.
        epsilon: Weight of the entropy, as a part of the largest cost, >= 0.05; counts with a matrix only.
        iterations: Of Sinkhorn; count with a matrix only.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is unknown or out of range, or the weight is negative.
    """

    compares_logits: ClassVar[bool] = True
    sides: ClassVar[tuple[str, ...]] = ('student', 'teachers')
    cost_matrix: Tensor | None

    def __init__(
        self,
        temperature: float = 4.0,
        weights: Weights = 'uniform',
        cost: str | Sequence[Sequence[float]] = 'zero_one',
        epsilon: float = 0.1,
        iterations: int = 50,
        loss_weight: float = 16.0,
    ) -> None:
        super().__init__(loss_weight)
        self.temperature = check_temperature(temperature)
        self.weights = check_weights(weights)
        self.cost = cost
        self.register_buffer('cost_matrix', _read_cost(cost), persistent=False)
        self.epsilon = check_number(epsilon, 'epsilon', _LEAST_EPSILON)
        self.iterations = check_whole(iterations, 'iterations', 1)

    def build_connectors(self, student: Sequence[int], teachers: Mapping[str, Sequence[int]]) -> None:
        """Learn who teaches, and make the scores if they are learned.

        Raises:
            ValueError: If weights are given for other teachers.
        """
        self.names = list(teachers)
        self.shares = TeacherWeights(self.weights, self.names)

    def forward(self, student: Tensor, teachers: Mapping[str, Tensor]) -> Tensor:
        """Weighted :func:`logits_graph_loss` of (N, C) logits and a dictionary of such."""
        logits = [teachers[name] for name in self.names]
        value = logits_graph_loss(
            student, logits, self.shares(), self.temperature, self.cost_matrix, self.epsilon, self.iterations
        )
        return self.loss_weight * value

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return (
            f'temperature={self.temperature:g}, weights={self.weights!r}, cost={self.cost!r}, '
            f'epsilon={self.epsilon:g}, iterations={self.iterations}, {super().extra_repr()}'
        )


def _read_cost(cost: Any) -> Tensor | None:
    """A matrix, or None for 0 and 1."""
    if isinstance(cost, str) and cost == 'zero_one':
        return None
    try:
        matrix = torch.tensor(cost, dtype=torch.float32) if isinstance(cost, (list, tuple)) else torch.zeros(0)
    except (TypeError, ValueError):
        matrix = torch.zeros(0)
    square = matrix.ndim == 2 and matrix.size(0) == matrix.size(1) > 1
    if not square or not (
        matrix.isfinite().all() and matrix.min() >= 0 and matrix.max() > 0 and (matrix.diagonal() == 0).all()
        and torch.equal(matrix, matrix.T)
    ):  # fmt: skip
        raise ValueError(
            f"cost={cost!r} given, expected 'zero_one' or a symmetric matrix (classes, classes) of finite numbers >= 0 "
            'as nested lists, with zeros in the diagonal'
        )
    return matrix
