"""MGD: masked generative distillation (Yang et al.)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...options import check_number
from ..base import DistillLoss, full_precision
from ..shapes import check_maps
from .align import channel_connector, check_same_channels, resize_like

Mask = Literal['positions', 'channels']


@full_precision
def mgd_loss(generated: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared differences of a generated map and the teacher's, summed over each image.

    Z. Yang, Z. Li, M. Shao, D. Shi, Z. Yuan, C. Yuan, "Masked Generative Distillation", ECCV 2022, arXiv 2205.01529,
    equation 2, as the authors' code: ``1 / N * sum (F_t - G(D * f(F_s)))**2``. It grows with the size of the maps.

    Args:
        generated: (N, C, H, W), what G made of the student's masked map.
        teacher: (N, C, H, W), taken as constant.

    Returns:
        Scalar, mean over the batch; 0 for an empty one.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> s, t = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, 2, 3, 6])
        >>> mgd_loss(s.view(1, 1, 2, 2), t.view(1, 1, 2, 2)).item()
        4.0
    """
    check_same_channels(generated, teacher)
    if generated.shape != teacher.shape:
        raise ValueError(
            f'generated {tuple(generated.shape)} and teacher {tuple(teacher.shape)} given, expected equal sizes'
        )
    return (generated - teacher.detach()).square().sum() / max(len(teacher), 1)


class MGDLoss(DistillLoss):
    """MGD, see :func:`mgd_loss`: the teacher's map is generated from the student's, part of which is masked.

    The student's map goes through a 1x1 convolution where channel counts differ, is resized (bilinear) to the teacher's
    where sizes differ (a deviation: the authors' code refuses them), loses a random part, which is drawn on its device
    from torch's own generator, and goes through two 3x3 convolutions with a ReLU between them. In evaluation mode
    nothing is masked.

    Published (authors), on each neck output: RetinaNet and RepPoints ``mask_ratio=0.65, loss_weight=2e-5``; Faster and
    Mask R-CNN ``mask_ratio=0.45, loss_weight=5e-7`` on the first four, all with gradients clipped at norm 35. ImageNet:
    ``mask_ratio=0.15, mask='channels', loss_weight=7e-5`` on the last stage.

    Args:
        mask_ratio: The part that is set to zero, in [0, 1).
        mask: ``positions``, the same of all channels, or whole ``channels``; drawn for each image.
        loss_weight: Factor on the value, which grows with C*H*W.

    Raises:
        ValueError: If ``mask`` is unknown, the ratio out of range or the weight negative.
    """

    def __init__(self, mask_ratio: float = 0.65, mask: Mask = 'positions', loss_weight: float = 2e-5) -> None:
        super().__init__(loss_weight)
        self.mask_ratio = check_number(mask_ratio, 'mask_ratio', high=1.0)
        if self.mask_ratio == 1:
            raise ValueError(f'mask_ratio={mask_ratio!r} given, expected less than 1: nothing of the student is left')
        if mask not in ('positions', 'channels'):
            raise ValueError(f"mask={mask!r} given, expected 'positions' or 'channels'")
        self.mask = mask
        self.connector: nn.Module = nn.Identity()
        self.generation: nn.Module = nn.Identity()

    def build_connectors(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        """Make the convolutions.

        Raises:
            ValueError: If these are not two maps.
        """
        self.connector = channel_connector(student, teacher, bias=True)
        channels = teacher[1]
        self.generation = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`mgd_loss` of what is generated from the student's masked map."""
        check_maps(student, teacher)
        student = resize_like(self.connector(student), teacher)
        if self.training and self.mask_ratio:
            student = student * self.draw(student)
        return self.loss_weight * mgd_loss(self.generation(student), teacher)

    def draw(self, student: Tensor) -> Tensor:
        """A mask of ones and zeros, (N, 1, H, W) or (N, C, 1, 1), of the student's dtype."""
        n, channels, height, width = student.shape
        shape = (n, 1, height, width) if self.mask == 'positions' else (n, channels, 1, 1)
        return (torch.rand(shape, device=student.device) <= 1 - self.mask_ratio).to(student.dtype)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'mask_ratio={self.mask_ratio:g}, mask={self.mask!r}, {super().extra_repr()}'
