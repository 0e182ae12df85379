"""MHGD: attention between the samples of a batch, by heads trained on the teacher and then used frozen (Lee, Song)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...options import check_number, check_whole
from ..base import full_precision
from ..gather import SampleRelationLoss
from ..norms import ConnectorNorm1d
from ..shapes import unit_vectors
from .kdsvd import aligned_vectors, signed_vectors
from .layers import LayerRelationLoss, Shapes


@full_precision
def mhgd_heads_loss(estimate: Tensor, teacher: Tensor) -> Tensor:
    """How far the teacher's vectors of a layer are from what attention makes of those of the layer before.

    S. Lee, B. C. Song, "Graph-based Knowledge Distillation by Multi-head Attention Network", BMVC 2019,
    arXiv 1907.02226: the mean over the batch of ``1 - cos(estimate, teacher)``.

    Args:
        estimate: (N, C).
        teacher: (N, C), taken as constant.

    Returns:
        Scalar in [0, 2] up to rounding, dimensionless; 0 for an empty batch. A vector of zeros has the cosine 0.

    Raises:
        ValueError: If these are no two tensors (N, C) of equal shape.

    Example:
        >>> import torch
        >>> estimate = torch.tensor([[2.0, 0.0], [0.0, -1.0]])
        >>> mhgd_heads_loss(estimate, torch.tensor([[1.0, 0.0], [0.0, 3.0]])).item()  # the same, and the opposite
        1.0
    """
    if estimate.ndim != 2 or estimate.shape != teacher.shape:
        raise ValueError(
            f'estimate {tuple(estimate.shape)} and teacher {tuple(teacher.shape)} given, expected two tensors (N, C) '
            'of equal shape'
        )
    cosines = (unit_vectors(estimate) * unit_vectors(teacher.detach())).sum(1)
    return (1 - cosines).sum() / max(len(cosines), 1)


@full_precision
def mhgd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Divergence of a student's attention graphs from a teacher's.

    S. Lee, B. C. Song, "Graph-based Knowledge Distillation by Multi-head Attention Network", BMVC 2019,
    arXiv 1907.02226. S_a holds the scores of head a, how much sample i attends to j; with ``G = tanh(S)`` and softmax
    over j

    ``L = 1 / N * sum_a sum_i KL( softmax(G_a[i] of the student) || softmax(G_a[i] of the teacher) )``

    with the student first, as in the authors' code and on their poster. Deviation: they take the sum over i; here it is
    the mean, which a batch given twice leaves as it is. The tanh is in the code alone.

    Args:
        student: Scores (A, N, N) of A heads.
        teacher: The same, taken as constant.

    Returns:
        Scalar in [0, 2 A] up to rounding, in nats, sum over the heads and mean over the batch; 0 for an empty batch.

    Raises:
        ValueError: If these are no two tensors (A, N, N) of equal shape.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[[50.0, -50.0], [50.0, -50.0]]])
        >>> round(mhgd_loss(scores, -scores).item(), 4)  # of (1, -1) and (-1, 1): 2 tanh(1) in each row
        1.5232
    """
    if student.ndim != 3 or student.shape != teacher.shape or student.size(1) != student.size(2):
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} given, expected the scores of A heads '
            'between N samples, twice (A, N, N)'
        )
    log_s, log_t = student.tanh().log_softmax(2), teacher.detach().tanh().log_softmax(2)
    return (log_s.exp() * (log_s - log_t)).sum() / max(student.size(1), 1)


class _Projection(nn.Module):
    """A linear layer without bias, and a batch norm."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inside, outside, bias=False)
        self.norm = ConnectorNorm1d(outside)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """(N, C_in) to (N, C_out). Frozen: by stored statistics whatever the mode, parameters being constants."""
        if not frozen:
            return self.norm(self.linear(x))
        norm, mapped = self.norm, F.linear(x, self.linear.weight.detach())
        parameters = norm.weight.detach(), norm.bias.detach()
        return F.batch_norm(mapped, norm.running_mean, norm.running_var, *parameters, eps=norm.eps)


class _Heads(nn.Module):
    """Attention heads between two layers of so many channels, and the estimator that trains them."""

    def __init__(self, front: int, back: int, heads: int) -> None:
        super().__init__()
        width = (front + back) // 2
        self.heads = heads
        self.theta = _Projection(back, heads * width)
        self.phi = _Projection(front, heads * width)
        self.value = _Projection(front, width)
        self.estimator = nn.Linear(heads * width, back)

    def scores(self, front: Tensor, back: Tensor, frozen: bool = False) -> Tensor:
        """(A, N, N), of vectors (N, C_front) and (N, C_back)."""
        query, key = (
            part(x, frozen).unflatten(1, (self.heads, -1)).transpose(0, 1)
            for part, x in ((self.theta, back), (self.phi, front))
        )
        return query @ key.mT

    def estimate(self, front: Tensor, back: Tensor, kept: Tensor) -> Tensor:
        """What the heads make of the front vectors: (N, C_back). ``kept``, (N, A), is 0 for a head that is dropped."""
        attended = self.scores(front, back).softmax(2) @ self.value(front).relu()
        return self.estimator((attended * kept.T[..., None]).transpose(0, 1).flatten(1))


class MHGDHeadsLoss(SampleRelationLoss):
    """MHGD's first stage: attention heads of the teacher, see :func:`mhgd_heads_loss`; the student is not read.

    Of each image and layer the teacher's first right singular vector v is taken, as :func:`kdsvd_loss` does. Between
    each layer (front) and the next (back) there are heads ``S_a = theta_a(v_back) phi_a(v_front)^T``, where theta and
    phi are linear, without bias, with batch norm, of width (C_front + C_back) / 2. They learn to estimate the back
    vectors by ``FC(concat_a(H_a ReLU(BN(FC(v_front)))))``, H_a being the rows' softmax of S_a. :class:`MHGDLoss` uses
    the heads when this loss has ended, so it has ``schedule=dict(end=N)``. The value is summed over the pairs of
    layers.

    The samples of each process's batch are related with each other, and batch norms see these, unless ``gather=True``.

    What the sources do not say is chosen here: the FC before the ReLU is one for all heads, of their width; heads are
    dropped for each sample by itself, and the others scaled up, as by dropout. The authors' penalty of 5e-4 times the
    squared weights is left to the optimizer: read literally it has the slope of ``weight_decay=1e-3``.

    Args:
        heads: A, between each layer and the next.
        head_drop: Probability that the estimator does without a head in training, >= 0 and < 1; the authors' is not
            known.
        gather: Relate the samples of all processes.
        loss_weight: Factor on the value; 1 is the authors'.

    Raises:
        ValueError: If a number is out of range, or the boolean is none.
    """

    relates_layers: ClassVar[bool] = True
    sides: ClassVar[tuple[str, ...]] = ('teacher',)

    def __init__(self, heads: int = 8, head_drop: float = 0.5, gather: bool = False, loss_weight: float = 1.0) -> None:
        super().__init__(gather, loss_weight)
        self.heads = check_whole(heads, 'heads', low=1)
        self.head_drop = check_number(head_drop, 'head_drop', high=0.999)
        self.pairs = nn.ModuleList()

    def build_connectors(self, teacher: Shapes) -> None:
        """Make heads and estimators.

        Raises:
            ValueError: If these are no two or more maps of the same images.
        """
        _check_stages(teacher)
        self.pairs = nn.ModuleList(_Heads(front[1], back[1], self.heads) for front, back in pairwise(teacher))

    def forward(self, teacher: Sequence[Tensor]) -> Tensor:
        """Weighted :func:`mhgd_heads_loss` of the teacher's maps, summed over the pairs of layers."""
        _check_stages([x.shape for x in teacher])
        vectors = teacher_vectors(teacher)
        kept = vectors[0].new_ones(len(vectors[0]), len(self.pairs), self.heads)
        *vectors, kept = self.joined(*vectors, F.dropout(kept, self.head_drop, self.training))
        return self.loss_weight * self._value(vectors, kept)

    @full_precision
    def _value(self, vectors: Sequence[Tensor], kept: Tensor) -> Tensor:
        values = [
            mhgd_heads_loss(pair.estimate(front, back, kept[:, number]), back)  # type: ignore[operator]
            for number, (pair, (front, back)) in enumerate(zip(self.pairs, pairwise(vectors), strict=True))
        ]
        return torch.stack(values).sum()

    @full_precision
    def scores(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """The scores (A, N, N) of each pair of layers, by heads as they are now: their parameters get no gradient.

        Args:
            vectors: (N, C_l), of any network.
        """
        layers = zip(self.pairs, pairwise(vectors), strict=True)
        return [pair.scores(front, back, frozen=True) for pair, (front, back) in layers]  # type: ignore[operator]

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'heads={self.heads}, head_drop={self.head_drop:g}, {super().extra_repr()}'


class MHGDLoss(LayerRelationLoss, SampleRelationLoss):
    """MHGD's second stage: the student's attention graphs against the teacher's, see :func:`mhgd_loss`.

    Both networks' vectors go through the heads as their stage left them, with stored statistics. The student has four
    singular vectors, of which the nearest to the teacher's is taken, as in :func:`kdsvd_loss`. The value is summed over
    the pairs of layers.

    The samples of each process's batch are related with each other, unless ``gather=True``; batch norms of connectors
    are each process's own all the same. The authors bound this loss's gradient by the task's:
    ``optim_wrapper=dict(type='BoundedOptimWrapper', begin=N)`` with N the epoch in which this stage begins.

    Args:
        heads: The entry of ``losses`` that trains them, a :class:`MHGDHeadsLoss` on the same layers of the teacher,
            which must have ended before this loss begins.
        connector: ``conv_bn`` for channels that differ: a learnable 1x1 convolution with batch norm at each layer of
            the student. The method itself wants equal channels.
        gather: Relate the samples of all processes.
        loss_weight: Factor on the value. The authors' sum over the samples, with the weight 1, is that of the batch
            size, here.

    Raises:
        ValueError: If the connector is unknown, the weight is negative or the boolean is none.
    """

    uses: ClassVar[dict[str, str]] = {'heads': 'MHGDHeadsLoss'}

    def __init__(
        self,
        heads: str = 'loss_heads',
        connector: str | None = None,
        gather: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(connector, loss_weight, gather=gather)
        self.heads = heads

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Weighted :func:`mhgd_loss` of two lists of maps, summed over the pairs of layers."""
        student, targets = self.connected(student, teacher), teacher_vectors(teacher)
        vectors = self.joined(*student_vectors(student, targets), *targets)
        scores_s, scores_t = (self.used('heads').scores(v) for v in (vectors[: len(targets)], vectors[len(targets) :]))
        values = [mhgd_loss(s, t) for s, t in zip(scores_s, scores_t, strict=True)]
        return self.loss_weight * torch.stack(values).sum()

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'heads={self.heads!r}, {super().extra_repr()}'


@full_precision
def teacher_vectors(maps: Sequence[Tensor]) -> list[Tensor]:
    """One vector (N, C_l) of length 1 for each map (N, C_l, H, W), or 0 for a dead one; without gradient."""
    return [signed_vectors(x.detach(), 1)[0].squeeze(2) for x in maps]


@full_precision
def student_vectors(maps: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
    """For each of the teacher's vectors (N, C_l) the nearest of the student's four; (N, C_l)."""
    return [aligned_vectors(x, target[..., None]).squeeze(2) for x, target in zip(maps, targets, strict=True)]


def _check_stages(shapes: Shapes) -> None:
    given = [*map(tuple, shapes)]
    if len(given) < 2 or any(len(shape) != 4 for shape in given) or len({shape[0] for shape in given}) > 1:
        raise ValueError(
            f'teacher layers {given} given, expected two or more, all maps (N, C, H, W) of the same N images: list the '
            'modules at the ends of stages, in their order'
        )
