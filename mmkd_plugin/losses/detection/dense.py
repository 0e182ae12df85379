"""What losses on dense heads share: the levels of both sides, which positions count, and what is divided by."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...options import check_number
from ..base import DistillLoss, full_precision

Positions = Literal['all', 'positive', 'confident']


class DenseHeadLoss(DistillLoss):
    """Base of losses that compare what two dense heads put out, all levels at once.

    Args:
        positions: Which count: ``all``; ``positive``, those that the student's own assigner gave a class; or
            ``confident``, those where the teacher's largest class score is at least ``threshold``.
        threshold: Of confident positions, in (0, 1].
        loss_weight: Factor on the value.

    Raises:
        ValueError: If ``positions`` is unknown, the threshold out of range or the weight negative.
    """

    needs: ClassVar[tuple[str, ...]] = ('assignments',)
    relates_layers: ClassVar[bool] = True
    takes_rois: ClassVar[bool] = False
    dense_outputs: tuple[str, ...] = ('scores',)

    def __init__(self, positions: Positions = 'all', threshold: float = 0.5, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        if positions not in ('all', 'positive', 'confident'):
            raise ValueError(f"positions={positions!r} given, expected 'all', 'positive' or 'confident'")
        self.positions = positions
        self.threshold = check_number(threshold, 'threshold', high=1.0, above=True)

    def build_connectors(self, student: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]]) -> None:
        """Make nothing, and see that both sides have the same levels.

        Raises:
            ValueError: If not; the message says which differ.
        """
        check_levels(student, teacher, len(self.dense_outputs))

    def count_priors(self, levels: Sequence[Tensor], assignments: Sequence[Tensor]) -> int:
        """How many anchors or points the head has at each place.

        Args:
            levels: Of each, (N, C, H, W).
            assignments: Those of all places.

        Raises:
            ValueError: If there are not as many for each place.
        """
        places, told = sum(level[:, 0].numel() for level in levels), sum(map(len, assignments))
        priors = told // places if places else 1
        if priors * places != told or not priors or any(level.size(1) % priors for level in levels):
            raise ValueError(
                f'maps {[tuple(level.shape) for level in levels]} given with {told} assignments, expected as many for '
                'each of their places: read all levels of the head'
            )
        return priors

    def positives(
        self, levels: Sequence[Tensor], assignments: Sequence[Tensor], priors: int, classes: int
    ) -> list[Tensor]:
        """Where the student's assigner gave a class, of each level (N, A, H, W) bool, by its anchors A.

        Args:
            levels: Of each, (N, C, H, W).
            assignments: All of them, level by level, then by image, row, column and anchor.
            priors: A.
            classes: The number that means background.
        """
        labels = torch.cat(list(assignments))
        positive = (labels >= 0) & (labels < (self.grid.classes if self.grid else classes))
        parts = torch.split(positive, [level[:, 0].numel() * priors for level in levels])
        return [
            part.view(len(level), *level.shape[2:], priors).permute(0, 3, 1, 2)
            for part, level in zip(parts, levels, strict=True)
        ]

    @torch.no_grad()
    @full_precision
    def confident(self, teacher: Sequence[Tensor], priors: int) -> list[Tensor]:
        """Where the teacher's largest class score reaches the threshold, of each level (N, A, H, W) bool."""
        return [level.sigmoid().amax(2) >= self.threshold for level in by_anchor(teacher, priors)]

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'positions={self.positions!r}, threshold={self.threshold:g}, {super().extra_repr()}'


def by_anchor(levels: Sequence[Tensor], priors: int) -> Iterator[Tensor]:
    """(N, A*K, H, W) each to (N, A, K, H, W)."""
    for level in levels:
        n, channels, height, width = level.shape
        yield level.reshape(n, priors, channels // priors, height, width)


def check_levels(student: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]], outputs: int) -> None:
    """Check that shapes are those of the same levels.

    Args:
        student: Of each level (N, C, H, W), for each output of the head.
        teacher: The same.
        outputs: How many outputs there are.

    Raises:
        ValueError: If not.
    """
    shapes = [tuple(shape) for shape in student], [tuple(shape) for shape in teacher]
    if shapes[0] != shapes[1] or len(student) % outputs or any(len(shape) != 4 for shape in shapes[0]):
        what = 'other levels' if len(student) != len(teacher) else 'maps'
        if len(student) == len(teacher) and all(len(s) == len(t) == 4 for s, t in zip(*shapes, strict=True)):
            differ = {
                name: i for i, name in ((2, 'heights'), (3, 'widths'), (1, 'anchors times classes'), (0, 'images'))
                if any(s[i] != t[i] for s, t in zip(*shapes, strict=True))
            }  # fmt: skip
            what = f'other {", ".join(differ)}' if differ else what
        raise ValueError(
            f'{what}: student {shapes[0]} and teacher {shapes[1]} given, expected the same maps (N, C, H, W) of both, '
            'level by level: dense heads can be compared on one grid only'
        )
