"""CrossKD: the student's head features go through the later layers of the teacher's head (Wang et al.)."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ...options import check_number
from ..base import check_temperature, full_precision
from ..gather import mean_of_processes
from .boxes import decoded, giou_loss, rows_of
from .dense import DenseHeadLoss, Positions, by_anchor, check_levels
from .dense_kd import qfl_kd_loss
from .ld import ld_loss

Boxes = Literal['giou', 'distributions', 'none']


class CrossKDLoss(DenseHeadLoss):
    r"""CrossKD of dense heads: cross-head predictions imitate the teacher's.

    J. Wang, Y. Chen, Z. Zheng, X. Li, M.-M. Cheng, Q. Hou, CVPR 2024, arXiv 2306.11369. What the student has after
    ``cut`` convolutions of each branch goes through the teacher's later layers, with gradient into the student alone;
    its own later layers learn from the ground truth only. ``on='bbox_head'`` says it all:

    ``L = sum_positions QFL(p_cross, p_t) / positives + box_weight * sum_i w_i d_i / sum_i w_i``

    QFL is :func:`qfl_kd_loss` over all positions and classes; ``d`` is ``1 - GIoU`` of decoded boxes, or for GFL the
    mean over a box's sides of ``T**2 * KL`` over its bins; ``w`` is the teacher's largest class score at a position,
    and both divisors are means over processes, at least 1. Centerness is not distilled.

    Deviation: cut, weights, ``beta`` and the weighting of boxes are options, since no readable source prints them; the
    defaults are ours (``beta=1`` is BCKD's for a teacher's scores). Both heads need convolutions of the same width.

    Args:
        cut: After how many convolutions; 0 sends the neck's output through the whole head.
        boxes: ``giou``, ``distributions`` (GFL), or ``none`` for the scores alone.
        beta: Exponent >= 1 of the scores' difference.
        temperature: Softening T > 0 of distributions (dimensionless).
        positions: Where boxes count: at the student's ``positive`` positions, where the teacher is ``confident``, or at
            ``all``.
        threshold: Of confident positions, in (0, 1].
        box_weight: Factor on the boxes' part.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    crosses_heads: ClassVar[bool] = True

    def __init__(
        self,
        cut: int = 3,
        boxes: Boxes = 'giou',
        beta: float = 1.0,
        temperature: float = 1.0,
        positions: Positions = 'positive',
        threshold: float = 0.5,
        box_weight: float = 1.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(positions, threshold, loss_weight)
        if isinstance(cut, bool) or not isinstance(cut, int) or cut < 0:
            raise ValueError(f"cut={cut!r} given, expected how many convolutions of a branch are the student's, >= 0")
        if boxes not in ('giou', 'distributions', 'none'):
            raise ValueError(f"boxes={boxes!r} given, expected 'giou', 'distributions' or 'none'")
        self.cut, self.boxes = cut, boxes
        self.beta = check_number(beta, 'beta', low=1.0)
        self.temperature = check_temperature(temperature)
        self.box_weight = check_number(box_weight, 'box_weight')
        outputs = {'giou': ('scores', 'boxes'), 'distributions': ('scores', 'distributions'), 'none': ('scores',)}
        self.dense_outputs = outputs[boxes]

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches of a head that are cut."""
        return ('cls_convs', 'reg_convs') if self.boxes != 'none' else ('cls_convs',)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], assignments: Sequence[Tensor]) -> Tensor:
        """The weighted sum.

        Args:
            student: Cross-head predictions: class logits of each level, (N, A*K, H, W), and then what tells boxes,
                (N, A*4, H, W) or (N, 4*bins, H, W).
            teacher: The teacher's own, taken as constant.
            assignments: The student's own class of each position, background K: level by level, then by image, row,
                column and anchor.

        Raises:
            ValueError: If levels differ, these are not the assignments of all of them, or nobody told how to read
                boxes.
        """
        outputs = len(self.dense_outputs)
        check_levels([level.shape for level in student], [level.shape for level in teacher], outputs)
        levels = len(student) // outputs
        scores, taught = student[:levels], [level.detach() for level in teacher[:levels]]
        priors = self.count_priors(scores, assignments)
        positive = self.positives(scores, assignments, priors, scores[0].size(1) // priors)
        value = torch.stack([qfl_kd_loss(s, t, self.beta) for s, t in zip(scores, taught, strict=True)]).sum()
        count = mean_of_processes(torch.stack([level.sum() for level in positive]).sum().to(value.dtype))
        value = value / count.clamp_min(1)
        if self.boxes != 'none':
            value = value + self.box_weight * self._of_boxes(
                student[levels:], teacher[levels:], taught, positive, priors
            )
        return self.loss_weight * value

    @full_precision
    def _of_boxes(
        self, student: Any, teacher: Any, scores: Sequence[Tensor], positive: list[Tensor], priors: int
    ) -> Tensor:
        chosen: list[Tensor] | None = positive
        if self.positions != 'positive':
            chosen = self.confident(scores, priors) if self.positions == 'confident' else None
        largest = [level.sigmoid().amax(2) for level in by_anchor(scores, priors)]
        weights = rows_of(largest, priors, chosen)[:, 0]
        if self.boxes == 'giou':
            own, taught = decoded(self.grid, (student, teacher), priors, chosen)
            value: Tensor = giou_loss(own, taught, weights)
        else:
            if priors != 1 or any(level.size(1) % 4 for level in student):
                raise ValueError(
                    f'{priors} anchors of each place and maps {[tuple(level.shape) for level in student]} given, '
                    'expected one and four distributions'
                )
            rows = [rows_of(side, 1, chosen) for side in (student, teacher)]
            rows = [row.view(len(row), 4, row.size(1) // 4) for row in rows]
            value = ld_loss(rows[0], rows[1], weights, self.temperature) * rows[0].size(2)
        return value / mean_of_processes(weights.sum()).clamp_min(1)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return (
            f'cut={self.cut}, boxes={self.boxes!r}, beta={self.beta:g}, temperature={self.temperature:g}, '
            f'box_weight={self.box_weight:g}, {super().extra_repr()}'
        )
