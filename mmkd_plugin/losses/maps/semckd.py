"""SemCKD: every student layer learns from every teacher layer, as attention says (Chen et al.)."""

from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...options import check_whole
from ..base import DistillLoss, full_precision
from ..norms import ConnectorNorm2d
from ..shapes import check_maps

# a quarter of it is the dimension of what is compared; of length 1 in one dimension, nothing could be learnt
_LEAST = 8


@full_precision
def semckd_similarities(features: Tensor, batch_size: int) -> Tensor:
    """Scalar products of each sample with all of the batch, in float32.

    Args:
        features: (N, ...), flattened to a vector for each sample.
        batch_size: At least N.

    Returns:
        (N, batch_size), 0 where the batch has no sample.

    Example:
        >>> import torch
        >>> semckd_similarities(torch.tensor([[1.0, 0.0], [2.0, 1.0]]), 3).tolist()
        [[1.0, 2.0, 0.0], [2.0, 5.0, 0.0]]
    """
    vectors = features.flatten(1)
    return F.pad(vectors @ vectors.mT, (0, batch_size - len(vectors)))


@full_precision
def semckd_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """How much each student layer shall learn from each teacher layer, for each sample.

    Args:
        queries: Of the student layers, (N, n_s, D).
        keys: Of the teacher layers, (N, n_t, D).

    Returns:
        (N, n_s, n_t): the softmax over teacher layers of cosines, so that rows sum to 1.
    """
    return (F.normalize(queries, dim=2) @ F.normalize(keys, dim=2).mT).softmax(2)


@full_precision
def semckd_loss(
    projected: Sequence[Sequence[Tensor]], targets: Sequence[Sequence[Tensor]], attention: Tensor
) -> Tensor:
    r"""Squared distances of all pairs of student and teacher layers, weighted by attention.

    D. Chen, J.-P. Mei, Y. Zhang, C. Wang, Z. Wang, Y. Feng, C. Chen, "Cross-Layer Distillation with Semantic
    Calibration", AAAI 2021, arXiv 2012.03236:

    ``1 / (N n_s) * sum_n sum_i sum_j a_n[i, j] * mean_chw (Proj_ij(F_s^i) - F_t^j)_n**2``

    Args:
        projected: By student layer i and teacher layer j, maps (N, C_j, H_ij, W_ij).
        targets: Likewise, the teacher's maps in these shapes, taken as constant.
        attention: a, (N, n_s, n_t).

    Returns:
        Scalar >= 0, in squared units of the teacher's maps, mean over the batch; 0 for an empty batch.

    Example:
        >>> import torch
        >>> maps = [[torch.zeros(2, 3, 4, 4)] * 2]
        >>> targets = [[torch.ones(2, 3, 4, 4), torch.full((2, 3, 4, 4), 2.0)]]
        >>> semckd_loss(maps, targets, torch.tensor([[[0.5, 0.5]], [[1.0, 0.0]]])).item()  # (2.5 + 1) / 2
        1.75
    """
    distances = [
        torch.stack([(p - t.detach()).square().flatten(1).mean(1) for p, t in zip(*layer, strict=True)], dim=1)
        for layer in zip(projected, targets, strict=True)
    ]
    count, students = attention.shape[:2]
    return (attention * torch.stack(distances, dim=1)).sum() / max(count * students, 1)


class SemCKDLoss(DistillLoss):
    r"""SemCKD, see :func:`semckd_loss`: what is compared with what is learnt, for each sample.

    ``on`` lists the stages of both networks, any number of each. Each stage has an MLP that embeds, for each sample,
    its similarities with the batch (:func:`semckd_similarities`; as wide as the batch, to half and to a quarter of
    that); the student's are queries and the teacher's keys of :func:`semckd_attention`. Each pair of stages has a
    projection of the student's map: convolutions 1x1 to twice the teacher's channels, 3x3, 1x1 to the teacher's
    channels, without bias, with batch norms and ReLUs in between. Of maps of other sizes the larger is averaged down,
    the student's before its projection.

    The relation is inside each process's batch. Deviation: a last batch that is smaller has similarities 0 in place of
    the samples that are missing (the authors drop it).

    The authors' numbers go with KD beside it: ``KDLoss`` with temperature 4 and weight 1.

    Args:
        batch_size: Of each process, as in ``train_dataloader``, >= 8; it must be given. In a config
            ``batch_size={{_base_.train_dataloader.batch_size}}``.
        loss_weight: Factor on the value; 400 is the authors' on CIFAR-100, 50 on ImageNet.

    Raises:
        ValueError: If ``batch_size`` is no whole number >= 8 or the weight is negative.
    """

    relates_layers: ClassVar[bool] = True

    def __init__(self, batch_size: int | None = None, loss_weight: float = 400.0) -> None:
        super().__init__(loss_weight)
        self.batch_size = None if batch_size is None else check_whole(batch_size, 'batch_size', low=_LEAST)
        self.queries, self.keys = nn.ModuleList(), nn.ModuleList()
        self.projections = nn.ModuleList()

    def build_connectors(self, student: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]]) -> None:
        """Make an MLP for each stage and a projection for each pair of stages.

        Raises:
            ValueError: If ``batch_size`` was not given, or a stage is no map.
        """
        if not student or not teacher or any(len(shape) != 4 for shape in (*student, *teacher)):
            raise ValueError(
                f'student stages {[tuple(s) for s in student]} and teacher stages {[tuple(t) for t in teacher]} given, '
                'expected maps (N, C, H, W), at least one of each'
            )
        if self.batch_size is None:
            raise ValueError(
                'batch_size=None given, expected the batch size of each process, which is the width of learnable '
                'parts: batch_size={{_base_.train_dataloader.batch_size}} in a config'
            )
        self.queries = nn.ModuleList(_embedding(self.batch_size) for _ in student)
        self.keys = nn.ModuleList(_embedding(self.batch_size) for _ in teacher)
        self.projections = nn.ModuleList(nn.ModuleList(_projection(s[1], t[1]) for t in teacher) for s in student)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Weighted :func:`semckd_loss` of two lists of maps."""
        if len(student) != len(self.queries) or len(teacher) != len(self.keys):
            raise ValueError(
                f'{len(student)} student and {len(teacher)} teacher stages given, expected {len(self.queries)} and '
                f'{len(self.keys)}'
            )
        for s, t in ((s, t) for s in student for t in teacher):
            check_maps(s, t)
        if len(student[0]) > (self.batch_size or 0):
            raise ValueError(
                f'a batch of {len(student[0])} given, expected at most batch_size={self.batch_size}: give the loss the '
                'batch size of train_dataloader (one that the command line changes, too)'
            )
        maps = [*student, *teacher]

        @cache  # each map is averaged down to each size once
        def pooled(number: int, size: tuple[int, int]) -> Tensor:
            own = maps[number]
            return own if own.shape[2:] == size else F.adaptive_avg_pool2d(own, size)

        projected: list[list[Tensor]] = []
        targets: list[list[Tensor]] = []
        for i, s in enumerate(student):
            sizes = [(min(s.size(2), t.size(2)), min(s.size(3), t.size(3))) for t in teacher]
            projected.append([self.projections[i][j](pooled(i, size)) for j, size in enumerate(sizes)])  # type: ignore
            targets.append([pooled(len(student) + j, size) for j, size in enumerate(sizes)])
        return self.loss_weight * semckd_loss(projected, targets, self._attention(student, teacher))

    @full_precision  # similarities are sums over whole maps, too large for float16
    def _attention(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        sides = [
            torch.stack([embed(self._similarities(x, embed)) for embed, x in zip(embeddings, side, strict=True)], dim=1)
            for embeddings, side in ((self.queries, student), (self.keys, [t.detach() for t in teacher]))
        ]
        return semckd_attention(*sides)

    def _similarities(self, features: Tensor, embed: nn.Module) -> Tensor:
        assert self.batch_size is not None
        return semckd_similarities(features, self.batch_size).to(next(embed.parameters()).dtype)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'batch_size={self.batch_size}, {super().extra_repr()}'


def _embedding(batch_size: int) -> nn.Sequential:
    """From similarities with the batch, (N, batch_size), to (N, batch_size // 4)."""
    half, quarter = batch_size // 2, batch_size // 4
    return nn.Sequential(nn.Linear(batch_size, half), nn.ReLU(), nn.Linear(half, quarter))


def _projection(in_channels: int, out_channels: int) -> nn.Sequential:
    twice = 2 * out_channels
    return nn.Sequential(
        nn.Conv2d(in_channels, twice, 1, bias=False),
        ConnectorNorm2d(twice),
        nn.ReLU(),
        nn.Conv2d(twice, twice, 3, padding=1, bias=False),
        ConnectorNorm2d(twice),
        nn.ReLU(),
        nn.Conv2d(twice, out_channels, 1, bias=False),
    )
