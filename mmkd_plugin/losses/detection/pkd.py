"""PKD: Pearson correlation of feature maps (Cao et al.)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..base import DistillLoss, full_precision
from .align import channel_connector, check_same_channels, resize_like

Resize = Literal['student', 'teacher']

_DEAD = 1e-4  # the deviation of a channel without a shape
_EPS = 1e-12  # far below its square


@full_precision
def pkd_loss(student: Tensor, teacher: Tensor, resize: Resize = 'student') -> Tensor:
    r"""Half the mean squared difference of two maps whose channels are standardised over batch and positions.

    W. Cao, Y. Zhang, J. Gao, A. Cheng, K. Cheng, J. Cheng, "PKD: General Distillation Framework for Object Detectors
    via Pearson Correlation Coefficient", NeurIPS 2022, arXiv 2207.02039, equations 3 and 4; as mmrazor's code:

    ``norm(F)_c = (F - mean_c) / std_c``, with the unbiased std over the M = N*H*W positions, and
    ``mean((norm(F_s) - norm(F_t))**2) / 2``, which is ``(M - 1) / M * mean_c(1 - r_c)`` with the correlations r_c.

    Deviation: the code adds 1e-6 to std. Here a channel whose std is at most 1e-4 is standardised to 0 and gets no
    gradient, which would be of order 1e6.

    Args:
        student: (N, C, H_s, W_s).
        teacher: (N, C, H_t, W_t), taken as constant.
        resize: Which of the two maps is resized to the other's size, bilinear, where these differ (mmrazor's
            ``resize_stu``).

    Returns:
        Scalar in [0, 2], dimensionless, mean over channels; 0 for an empty batch.

    Raises:
        ValueError: If the shapes differ in more than height and width, or ``resize`` is unknown.

    Example:
        >>> import torch
        >>> s, t = torch.tensor([0.0, 1, 2, 3]), torch.tensor([0.0, 1, 2, 4])
        >>> round(pkd_loss(s.view(1, 1, 2, 2), t.view(1, 1, 2, 2)).item(), 6)
        0.012969
    """
    check_same_channels(student, teacher)
    _check_resize(resize)
    teacher = teacher.detach()
    if resize == 'student':
        student = resize_like(student, teacher)
    else:
        teacher = resize_like(teacher, student)
    channels = student.size(1)
    count = student.numel() // channels  # M
    if count < 2:  # a single value has no deviation
        return student.sum() * 0
    (norm_s, dead_s), (norm_t, dead_t) = _standardized(student), _standardized(teacher)
    distances = (norm_s - norm_t).square().sum((0, 2, 3))
    distances = torch.where(dead_s | dead_t, count * (dead_s ^ dead_t), distances)
    return distances.sum() * ((count - 1) / (2 * count**2 * channels))


def _standardized(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel at mean 0 and biased variance 1, as a batch norm makes it; and which channels (C,) are dead."""
    norm, _, inverse = torch.native_batch_norm(maps, None, None, None, None, True, 0.0, _EPS)
    return norm, inverse.detach() >= (_DEAD**2 + _EPS) ** -0.5


def _check_resize(resize: str) -> None:
    if resize not in ('student', 'teacher'):
        raise ValueError(f"resize={resize!r} given, expected 'student' or 'teacher'")


class PKDLoss(DistillLoss):
    """PKD, see :func:`pkd_loss`; a 1x1 convolution brings the student to the teacher's channels where they differ.

    It has no bias, which would change nothing; mmrazor's code has no connector, and refuses such pairs. Statistics are
    those of a process's own batch, and padding counts in them.

    Published (mmrazor), on the first four neck outputs: 6 for each with Faster R-CNN and Mask R-CNN teachers, 10 with
    RetinaNet, RepPoints and FCOS teachers.

    Args:
        resize: Which side is resized where sizes differ.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If ``resize`` is unknown or the weight is negative.
    """

    def __init__(self, resize: Resize = 'student', loss_weight: float = 6.0) -> None:
        super().__init__(loss_weight)
        _check_resize(resize)
        self.resize = resize
        self.connector: nn.Module = nn.Identity()

    def build_connectors(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        """Make the convolution, if it is needed.

        Raises:
            ValueError: If these are not two maps.
        """
        self.connector = channel_connector(student, teacher, bias=False)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`pkd_loss` of the connected student and the teacher."""
        return self.loss_weight * pkd_loss(self.connector(student), teacher, self.resize)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'resize={self.resize!r}, {super().extra_repr()}'
