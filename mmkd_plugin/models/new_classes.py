"""A task loss for classes that come after others were learned."""

from typing import Any

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..options import check_number, check_whole


@MODELS.register_module()
class NewClassesCrossEntropy(nn.Module):
    """Cross-entropy among the new classes alone; ``head=dict(loss=dict(type='NewClassesCrossEntropy', old=5))``.

    Z. Li, D. Hoiem, "Learning without Forgetting", ECCV 2016, arXiv 1606.09282, equation 1, where each task has a
    softmax of its own. Among all classes, images of new ones alone would teach that nothing is ever an old one, and no
    softmax among the old classes would hold against that.

    Args:
        old: How many classes are old; they are the first ones, and no image is of one.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, old: int, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.old = check_whole(old, 'NewClassesCrossEntropy: old', low=1)
        self.loss_weight = check_number(loss_weight, 'NewClassesCrossEntropy: loss_weight')

    def forward(self, cls_score: Tensor, label: Tensor, avg_factor: float | None = None, **kwargs: Any) -> Tensor:
        """The weighted mean over the batch.

        Args:
            cls_score: Logits (N, C).
            label: Classes (N,) int64, all of them new.
            avg_factor: What the sum is divided by; None is N.
            **kwargs: What heads say besides; nothing of it is known.

        Raises:
            ValueError: If labels are soft, there is no new class, or (found on a CPU) an image is of an old one.
        """
        if label.ndim != 1 or label.is_floating_point():
            raise ValueError(f'labels {tuple(label.shape)} of {label.dtype} given, expected one class for each image')
        if cls_score.size(1) <= self.old:
            raise ValueError(f'old={self.old} given, and the head has {cls_score.size(1)} classes: expected more')
        if label.device.type == 'cpu' and len(label) and int(label.min()) < self.old:
            raise ValueError(
                f'an image is of class {int(label.min())}, one of the {self.old} old ones: give images of new classes '
                'only, or train with the usual loss of all classes'
            )
        # -100, which torch ignores, would be the difference of two classes
        value = F.cross_entropy(cls_score[:, self.old :], label - self.old, reduction='sum', ignore_index=-(2**40))
        return self.loss_weight * value / (len(label) if avg_factor is None else avg_factor)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'old={self.old}, loss_weight={self.loss_weight:g}'
