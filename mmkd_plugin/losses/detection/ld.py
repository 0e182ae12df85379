"""LD: localisation distillation (Zheng et al.)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...options import check_bool, check_number
from ..base import check_temperature, full_precision
from ..gather import mean_of_processes
from .dense import DenseHeadLoss, Positions, check_levels

_CANDIDATES = 9  # of each level for each box, as ATSS has


@full_precision
def ld_loss(student: Tensor, teacher: Tensor, weights: Tensor, temperature: float = 10.0) -> Tensor:
    r"""KL divergence of the distributions of a box's four sides, from the teacher's to the student's.

    Z. Zheng, R. Ye, P. Wang, D. Ren, W. Zuo, Q. Hou, M.-M. Cheng, "Localization Distillation for Dense Object
    Detection", CVPR 2022, arXiv 2102.12252, as the authors' and mmdet's code:

    ``1/4 * sum_i w_i sum_sides T**2 / bins * KL(softmax(z_t / T) || softmax(z_s / T))``. The mean over bins and the
    sum over positions are the codes'; the published weights go with them.

    Args:
        student: Logits (P, 4, bins) of P positions.
        teacher: Logits (P, 4, bins), taken as constant.
        weights: (P,), taken as constant.
        temperature: Softening T > 0 (dimensionless).

    Returns:
        Scalar, in nats times T squared: a sum over positions; 0 without any.

    Raises:
        ValueError: If the shapes differ, or the temperature is not a finite number > 0.

    Example:
        >>> import torch
        >>> t = torch.tensor([1024.0, 1.0]).log().expand(1, 4, 2)
        >>> round(0.25 * ld_loss(torch.zeros(1, 4, 2), t, torch.tensor([0.5])).item(), 6)
        0.353956
    """
    if student.ndim != 3 or student.shape != teacher.shape or weights.shape != student.shape[:1]:
        raise ValueError(
            f'student {tuple(student.shape)}, teacher {tuple(teacher.shape)} and weights {tuple(weights.shape)} given, '
            'expected (P, 4, bins) twice and (P,)'
        )
    temperature = check_temperature(temperature)
    log_s, log_t = ((z / temperature).log_softmax(2) for z in (student, teacher.detach()))
    divergence = F.kl_div(log_s, log_t, reduction='none', log_target=True).sum((1, 2))
    return (weights.detach() * divergence).sum() * (temperature**2 / (4 * student.size(2)))


@torch.no_grad()
def valuable_region(anchors: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """How much each anchor lies in the valuable localisation region of LD, where no positives are but boxes are near.

    As the authors' code: with ``thr_g``, mean plus unbiased deviation of a box's IoUs with the nine anchors of each
    level that are the nearest to its centre (ATSS's threshold), the region of a box g is where
    ``thr_g / 4 <= DIoU < thr_g``, and an anchor's weight is its largest IoU with the boxes whose region it is in.

    Args:
        anchors: Of each level, (P_l, 4), x1, y1, x2, y2 in pixels.
        boxes: (N, B, 4); rows that are none begin at infinity.

    Returns:
        (N, P), P being the sum of the P_l; 0 outside.
    """
    own = torch.cat(list(anchors))
    real = boxes.isfinite().all(2)
    boxes = torch.where(real[:, :, None], boxes.to(own.dtype), 0)
    if not boxes.size(1) or not boxes.size(0):
        return own.new_zeros(len(boxes), len(own))
    center, side = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    own_center, own_side = (own[:, :2] + own[:, 2:]) / 2, own[:, 2:] - own[:, :2]
    distance, diagonal = (own.new_zeros(*boxes.shape[:2], len(own)) for _ in range(2))
    overlap = torch.ones_like(distance)
    for axis in (0, 1):  # what is boxes by anchors, (N, B, P), is large: it is changed in place
        low, high = (boxes[..., axis + end, None] for end in (0, 2))
        gap = center[..., axis, None] - own_center[:, axis]
        distance.addcmul_(gap, gap)
        gap = torch.max(high, own[:, axis + 2]).sub_(torch.min(low, own[:, axis]))
        diagonal.addcmul_(gap, gap)
        overlap.mul_(torch.min(high, own[:, axis + 2]).sub_(torch.max(low, own[:, axis])).clamp_min_(0))
    union = (side.prod(2)[..., None] + own_side.prod(1)).sub_(overlap)
    iou = overlap.div_(union.clamp_min_(1e-6))
    nearest, start = [], 0
    for level in anchors:
        near = distance[..., start : start + len(level)].topk(min(_CANDIDATES, len(level)), 2, largest=False)
        nearest.append(near.indices + start)
        start += len(level)
    candidates = iou.gather(2, torch.cat(nearest, 2))
    threshold = candidates.mean(2, keepdim=True)
    if candidates.size(2) > 1:
        threshold = threshold + candidates.std(2, keepdim=True)
    diou = iou - distance.div_(diagonal.clamp_min_(1e-6))
    inside = (diou >= threshold / 4) & (diou < threshold) & real[..., None]
    return torch.where(inside, iou, 0).amax(1)


class LDLoss(DenseHeadLoss):
    """LD, see :func:`ld_loss`, of heads that put out distributions, as GFL's.

    It reads the scores of all levels and then the distributions:
    ``on=[f'bbox_head[{o}][{i}]' for o in (0, 1) for i in range(5)]``. A position weighs as much as the student's
    largest class score there, and in the valuable region (:func:`valuable_region`) ``valuable_weight / 4`` times its
    IoU.

    Published: ``temperature=10, loss_weight=0.25`` on the positives (mmdet); the authors add the valuable region with
    ``valuable_weight=1``, and a KD of classes. Nothing divides the sum there; mmdet divides the other box losses by the
    sum of the positives' weights, as ``normalize=True`` does here, with a weight of its own.

    Args:
        temperature: Softening T > 0 (dimensionless).
        positions: Which count: the student's ``positive`` ones, the teacher's ``confident`` ones, or ``all``.
        threshold: Of confident positions, in (0, 1].
        valuable_weight: Weight of the valuable region beside them.
        normalize: Divide by the sum of the positives' weights, the mean over processes, at least 1.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    needs: ClassVar[tuple[str, ...]] = ('assignments', 'padded_boxes')
    dense_outputs: tuple[str, ...] = ('scores', 'distributions')

    def __init__(
        self,
        temperature: float = 10.0,
        positions: Positions = 'positive',
        threshold: float = 0.5,
        valuable_weight: float = 0.0,
        normalize: bool = False,
        loss_weight: float = 0.25,
    ) -> None:
        super().__init__(positions, threshold, loss_weight)
        self.temperature = check_temperature(temperature)
        self.valuable_weight = check_number(valuable_weight, 'valuable_weight')
        self.normalize = check_bool(normalize, 'normalize')

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        assignments: Sequence[Tensor],
        padded_boxes: Tensor,
    ) -> Tensor:
        """Weighted :func:`ld_loss` of the positions that count.

        Args:
            student: Class logits of each level (N, K, H, W), which get no gradient, and then the logits of
                distributions, (N, 4*bins, H, W).
            teacher: The same, taken as constant.
            assignments: Class of each position, background K: level by level, then by image, row and column.
            padded_boxes: Ground truth (N, B, 4).

        Raises:
            ValueError: If levels differ, these are not the assignments of all of them, or the head has several anchors.
        """
        check_levels([level.shape for level in student], [level.shape for level in teacher], 2)
        levels = len(student) // 2
        scores, sides = student[:levels], student[levels:]
        if (priors := self.count_priors(scores, assignments)) != 1 or any(level.size(1) % 4 for level in sides):
            raise ValueError(
                f'{priors} anchors of each place and maps {[tuple(level.shape) for level in sides]} given, expected '
                'one and four distributions'
            )
        with torch.no_grad():
            weights = self._weights(scores, teacher[:levels], assignments, padded_boxes)
            chosen = [level != 0 for level in weights]  # (N, H, W) each
        rows = [
            torch.cat([_rows(level, here) for level, here in zip(side, chosen, strict=True)])
            for side in (sides, teacher[levels:])
        ]
        found = torch.cat([level[here] for level, here in zip(weights, chosen, strict=True)])
        value: Tensor = ld_loss(rows[0], rows[1], found, self.temperature)
        return self.loss_weight * value

    @full_precision
    def _weights(self, scores: Any, teacher: Any, assignments: Any, boxes: Tensor) -> list[Tensor]:
        """Of the positions of each level, (N, H, W)."""
        positive = [p[:, 0] for p in self.positives(scores, assignments, 1, scores[0].size(1))]
        largest = [level.sigmoid().amax(1) for level in scores]
        chosen = positive
        if self.positions == 'confident':
            chosen = [level[:, 0] for level in self.confident(teacher, 1)]
        weights = list(largest)
        if self.positions != 'all':
            weights = [score * here for score, here in zip(largest, chosen, strict=True)]
        if self.valuable_weight:
            if self.grid is None:
                raise ValueError('valuable_weight given, and nobody told the anchors: set loss.grid to a DenseGrid')
            sizes = [(level.size(2), level.size(3)) for level in scores]
            region = valuable_region(self.grid.anchors(sizes, scores[0]), boxes)
            parts = torch.split(region, [height * width for height, width in sizes], 1)
            for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
                weights[number] = weights[number] + part.view(-1, *size) * (self.valuable_weight / 4)
        if self.normalize:
            total = torch.stack([(a * b).sum() for a, b in zip(largest, positive, strict=True)]).sum()
            total = mean_of_processes(total).clamp_min(1)
            weights = [level / total for level in weights]
        return weights

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return (
            f'temperature={self.temperature:g}, valuable_weight={self.valuable_weight:g}, normalize={self.normalize}, '
            f'{super().extra_repr()}'
        )


def _rows(level: Tensor, chosen: Tensor) -> Tensor:
    """(N, 4*bins, H, W) to (P, 4, bins) at the chosen positions."""
    return level.permute(0, 2, 3, 1)[chosen].view(-1, 4, level.size(1) // 4)
