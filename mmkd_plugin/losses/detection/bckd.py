"""BCKD: sigmoid scores and boxes of dense heads, both by the losses that detectors are trained with (Yang et al.)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...options import check_bool, check_number
from ..base import full_precision
from ..gather import mean_of_processes
from .boxes import decoded, giou_loss, rows_of
from .dense import DenseHeadLoss, by_anchor, check_levels
from .dense_kd import qfl_kd_loss


class BCKDLoss(DenseHeadLoss):
    r"""BCKD, of any dense heads that take sigmoids and whose boxes can be decoded.

    L. Yang et al., "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection", ICCV 2023,
    arXiv 2308.14286, as its authors' code: over all positions p, with sigmoid scores q and decoded boxes b,

    ``L = 1 / positives * sum_p [sum_c |q_t - q_s| * BCE(z_s, q_t) + box_weight * w_p * (1 - GIoU(b_s, b_t))]`` and
    ``w_p = max_c |q_t - q_s|``, taken as constant. ``positives`` is their number in the batch, the mean over processes,
    at least 1.

    It reads the whole head, ``on='bbox_head'``. Published: ``loss_weight=1, box_weight=4``.

    Deviation: the code adds 1e-4 to the weights of boxes, and leaves out positions that the student's own loss ignores.

    Args:
        box_weight: Factor on the boxes' part.
        skip_empty: Whether levels without a positive count for nothing, as in the code.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is out of range.
    """

    dense_outputs: tuple[str, ...] = ('scores', 'boxes')

    def __init__(self, box_weight: float = 4.0, skip_empty: bool = True, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight=loss_weight)
        self.box_weight = check_number(box_weight, 'box_weight')
        self.skip_empty = check_bool(skip_empty, 'skip_empty')

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], assignments: Sequence[Tensor]) -> Tensor:
        """The weighted sum over positions, divided.

        Args:
            student: Class logits of each level, (N, A*K, H, W), and then what tells boxes, (N, A*4, H, W) or
                (N, 4*bins, H, W).
            teacher: The same, taken as constant.
            assignments: Class of each position, background K: level by level, then by image, row, column and anchor.

        Raises:
            ValueError: If levels differ, these are not the assignments of all of them, or nobody told how to read
                boxes.
        """
        check_levels([level.shape for level in student], [level.shape for level in teacher], 2)
        half = len(student) // 2
        scores, taught = student[:half], [level.detach() for level in teacher[:half]]
        priors = self.count_priors(scores, assignments)
        found = self.positives(scores, assignments, priors, scores[0].size(1) // priors)
        counts = torch.stack([level.sum() for level in found])
        values = torch.stack([qfl_kd_loss(s, t, 1.0) for s, t in zip(scores, taught, strict=True)])
        here = counts.gt(0) if self.skip_empty else torch.ones_like(counts, dtype=torch.bool)
        boxes = self._of_boxes((scores, student[half:]), (taught, teacher[half:]), here, priors)
        value = (values * here).sum() + self.box_weight * boxes
        return self.loss_weight * value / mean_of_processes(counts.sum().to(value.dtype)).clamp_min(1)

    @full_precision
    def _of_boxes(self, student: Any, teacher: Any, here: Tensor, priors: int) -> Tensor:
        """The sum of ``w_p * (1 - GIoU)`` over the levels that count."""
        weights = []
        for number, (s, t) in enumerate(zip(by_anchor(student[0], priors), by_anchor(teacher[0], priors), strict=True)):
            weights.append((t.sigmoid() - s.detach().sigmoid()).abs().amax(2) * here[number])
        own, taught = decoded(self.grid, (student[1], teacher[1]), priors)
        value: Tensor = giou_loss(own, taught, rows_of(weights, priors)[:, 0])
        return value

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'box_weight={self.box_weight:g}, skip_empty={self.skip_empty}, loss_weight={self.loss_weight:g}'
