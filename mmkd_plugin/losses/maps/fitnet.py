"""FitNets: hints, one teacher map regressed from one student map (Romero et al.)."""

import warnings
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..base import DistillLoss, full_precision
from ..norms import ConnectorNorm1d, ConnectorNorm2d
from ..shapes import check_maps, pool_to_smaller

_REGRESSORS = ('conv_bn_relu', 'conv_bn', 'conv', 'identity')


@full_precision
def fitnet_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two feature maps, or of two vectors for each row.

    A. Romero, N. Ballas, S. E. Kahou, A. Chassang, C. Gatta, Y. Bengio, "FitNets: Hints for Thin Deep
    Nets", ICLR 2015, arXiv 1412.6550, equation 3. Deviation: the mean over all elements, as in the
    code that is in use (RepDistiller, mdistiller); the paper has half the sum.

    Args:
        student: (N, C, H_s, W_s) or (N, D), after the regressor.
        teacher: (N, C, H_t, W_t) or (N, D), taken as constant; the larger map is averaged down.

    Returns:
        Scalar, mean over the batch and all elements; 0 for an empty batch.

    Raises:
        ValueError: If the shapes differ in more than height and width.

    Example:
        >>> import torch
        >>> fitnet_loss(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)).item()
        0.25
    """
    if student.ndim == 4 and teacher.ndim == 4 and student.shape[:2] == teacher.shape[:2]:
        student, teacher = pool_to_smaller(student, teacher)
    if student.shape != teacher.shape:
        raise ValueError(
            f'student {tuple(student.shape)} (after the regressor) and teacher {tuple(teacher.shape)} given, expected '
            'two maps (N, C, H, W) that differ in H and W at most, or two tensors (N, D)'
        )
    return F.mse_loss(student, teacher.detach(), reduction='sum') / max(student.numel(), 1)


class FitNetLoss(DistillLoss):
    """Hints, see :func:`fitnet_loss`, with a learnable regressor from the student's channels to the teacher's.

    The regressor of a map is a 1x1 convolution; 3x3 with stride 2 where the student's map is twice
    as high and wide as the teacher's; 4x4 transposed with stride 2 where it is half as high and wide.
    That of a vector is a linear layer. Deviation: at other ratios the larger map is averaged down,
    where RepDistiller convolves without padding, which fits images of one size only. In a last batch
    of a single vector or pixel, the regressor's batch norm uses its running statistics.

    Args:
        regressor: ``conv_bn_relu`` for a teacher map after its ReLU (the usual one); ``conv_bn`` or
            ``conv`` for maps with negative values, such as FPN's; ``identity`` for equal channels.
        loss_weight: Factor on the value; 100 is the usual one.

    Raises:
        ValueError: If the regressor is unknown or the weight is negative.
    """

    def __init__(self, regressor: str = 'conv_bn_relu', loss_weight: float = 100.0) -> None:
        super().__init__(loss_weight)
        if regressor not in _REGRESSORS:
            raise ValueError(f'regressor={regressor!r} given, expected one of {", ".join(map(repr, _REGRESSORS))}')
        self.kind = regressor
        self.regressor: nn.Module = nn.Identity()
        self._warned = False

    def build_connectors(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        """Make the regressor.

        Raises:
            ValueError: If these are neither two maps nor two vectors, or ``identity`` meets
                different channels.
        """
        if len(student) != len(teacher) or len(student) not in (2, 4):
            raise ValueError(
                f'student {tuple(student)} and teacher {tuple(teacher)} given, expected two maps (N, C, H, W) or two '
                'tensors (N, D)'
            )
        if self.kind == 'identity':
            if student[1] != teacher[1]:
                raise ValueError(
                    f"regressor='identity' given, and the student has {student[1]} channels, the teacher {teacher[1]}: "
                    "use regressor='conv'"
                )
            return
        bias = self.kind == 'conv'
        layers: list[nn.Module] = [
            nn.Linear(student[1], teacher[1], bias)
            if len(student) == 2
            else _convolution(tuple(student[1:]), tuple(teacher[1:]), bias)
        ]
        if not bias:
            layers.append((ConnectorNorm1d if len(student) == 2 else ConnectorNorm2d)(teacher[1]))
        if self.kind == 'conv_bn_relu':
            layers.append(nn.ReLU())
        self.regressor = nn.Sequential(*layers)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`fitnet_loss` of the regressed student and the teacher."""
        if student.ndim == 4:
            check_maps(student, teacher)
        if self.training and self.kind == 'conv_bn_relu' and not self._warned:
            self._warned = True  # looked at once, because looking waits for the device
            if (teacher < 0).any():
                warnings.warn(
                    "FitNetLoss: the teacher's values are partly negative, which regressor='conv_bn_relu' cannot "
                    "reach: take regressor='conv', or tap behind the ReLU",
                    stacklevel=2,
                )
        return self.loss_weight * fitnet_loss(self.regressor(student), teacher)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'regressor={self.kind!r}, {super().extra_repr()}'


def _convolution(student: tuple[int, ...], teacher: tuple[int, ...], bias: bool) -> nn.Module:
    """By channels and sizes (C, H, W)."""
    channels = student[0], teacher[0]
    if student[1:] == teacher[1:]:
        return nn.Conv2d(*channels, 1, bias=bias)
    if all(s == 2 * t for s, t in zip(student[1:], teacher[1:], strict=True)):
        return nn.Conv2d(*channels, 3, stride=2, padding=1, bias=bias)
    if all(2 * s == t for s, t in zip(student[1:], teacher[1:], strict=True)):
        return nn.ConvTranspose2d(*channels, 4, stride=2, padding=1, bias=bias)
    return nn.Conv2d(*channels, 1, bias=bias)
