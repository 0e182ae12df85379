"""ILOD: a detector's old classes, while its successor learns new ones (Shmelkov, Schmid, Alahari)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...options import check_bool, check_number
from ..base import DistillLoss, full_precision


@full_precision
def ilod_loss(
    student_scores: Tensor,
    student_boxes: Tensor,
    teacher_scores: Tensor,
    teacher_boxes: Tensor,
    share: float = 0.5,
    background: bool = True,
) -> Tensor:
    r"""Squared differences of logits and box offsets of the old classes, on RoIs that may show some.

    K. Shmelkov, C. Schmid, K. Alahari, "Incremental Learning of Object Detectors without Catastrophic Forgetting", ICCV
    2017, arXiv 1708.06977 (form as we know it, not checked against the paper):
    ``1 / R sum_r [ 1 / K sum_k (u_rk - v_rk)^2 + 1 / C_old sum_c |s_rc - t_rc|^2 ]``, with logits u and v of the K
    outputs of the older detector from which their mean over these is taken, and box offsets s and t of each class, four
    a box. The paper draws 64 of the 128 RoIs of an image with the lowest background score. Here the RoIs are those that
    the student sampled, of the whole batch, and the share with the lowest score is taken, so that nothing is drawn.

    Args:
        student_scores: Logits (R, C + 1), old classes first, background last.
        student_boxes: Offsets (R, 4 C), or (R, 4) where all classes share a box.
        teacher_scores: Logits (R, C_old + 1) of the older detector for the same RoIs; taken as constant.
        teacher_boxes: Its offsets (R, 4 C_old) or (R, 4); taken as constant.
        share: Of the RoIs, those with the lowest background score of the older detector, in (0, 1].
        background: Whether the K outputs have the background among them. Without it nothing keeps an old class above
            the background, which old objects are taught to be in pictures where they have no boxes.

    Returns:
        Scalar, in squared logits (and squared offsets), mean over the taken RoIs and the old classes; 0 without RoIs.

    Raises:
        ValueError: If the shapes do not belong together, or an argument is out of range.

    Example:
        >>> boxes = torch.zeros(1, 12)
        >>> z = [torch.tensor([[*values, 0.0]]) for values in ((1.0, 2.0, 3.0), (3.0, 4.0, 5.0), (1.0, 2.0, 6.0))]
        >>> [round(ilod_loss(other, boxes, z[0], boxes, background=False).item(), 6) for other in z]
        [0.0, 0.0, 2.0]
    """
    share, background = check_number(share, 'share', high=1, above=True), check_bool(background, 'background')
    _check_branches(student_scores, student_boxes, teacher_scores, teacher_boxes)
    teacher_scores, teacher_boxes = teacher_scores.detach(), teacher_boxes.detach()
    rois, old = len(teacher_scores), teacher_scores.size(1) - 1
    if not rois:
        return (student_scores.sum() + student_boxes.sum()) * 0.0
    score = teacher_scores.softmax(dim=1)[:, -1]
    taken = score.topk(max(int(rois * share), 1), largest=False, sorted=False).indices
    outputs = []
    for scores in (student_scores[taken], teacher_scores[taken]):
        known = torch.cat([scores[:, :old], scores[:, -1:]], dim=1) if background else scores[:, :old]
        outputs.append(known - known.mean(dim=1, keepdim=True))
    boxes = (student_boxes[taken, : teacher_boxes.size(1)] - teacher_boxes[taken]).square()
    return (outputs[0] - outputs[1]).square().mean() + 4 * boxes.mean()


def _check_branches(
    student_scores: Tensor, student_boxes: Tensor, teacher_scores: Tensor, teacher_boxes: Tensor
) -> None:
    given = [tuple(t.shape) for t in (student_scores, student_boxes, teacher_scores, teacher_boxes)]
    fits = all(len(shape) == 2 for shape in given) and len({shape[0] for shape in given}) == 1
    if fits:
        new, old = given[0][1] - 1, given[2][1] - 1
        fits = new >= old >= 1 and (given[1][1], given[3][1]) in ((4, 4), (4 * new, 4 * old))
    if not fits:
        raise ValueError(
            f'scores and boxes {given[0]}, {given[1]} of the student and {given[2]}, {given[3]} of the older detector '
            'given, expected (R, C + 1), (R, 4 C) and (R, C_old + 1), (R, 4 C_old) with C_old <= C, or (R, 4) on both '
            "sides where classes share a box: on=['roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg']"
        )


class ILODLoss(DistillLoss):
    """ILOD on the box branch of a two-stage detector, see :func:`ilod_loss`.

    ``on=['roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg']``. The teacher is the older detector, with fewer
    classes; they are the first ones of the student, in the same order, which is checked against the training data where
    its checkpoint names them. The background is the last column of both.

    Args:
        share: Of the RoIs, those with the lowest background score of the older detector, in (0, 1].
        background: Whether the logits of the background are compared too.
        loss_weight: Factor on the value; 1 in the paper.

    Raises:
        ValueError: If an argument is out of range.
    """

    relates_layers: ClassVar[bool] = True

    def __init__(self, share: float = 0.5, loss_weight: float = 1.0, background: bool = True) -> None:
        super().__init__(loss_weight)
        self.share = check_number(share, 'share', high=1, above=True)
        self.background = check_bool(background, 'background')

    def prepare(self, facts: Any) -> None:
        """Compare the classes of the older detector with those of the data."""
        for side, classes in facts.classes.items():
            facts.data.check_old(classes, side)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Weighted :func:`ilod_loss` of two pairs of scores and boxes.

        Raises:
            ValueError: If these are no pairs.
        """
        if len(student) != 2 or len(teacher) != 2:
            raise ValueError(
                f'{len(student)} and {len(teacher)} taps given, expected scores and boxes: '
                "on=['roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg']"
            )
        return self.loss_weight * ilod_loss(student[0], student[1], teacher[0], teacher[1], self.share, self.background)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'share={self.share:g}, background={self.background}, {super().extra_repr()}'
