"""FGD: focal and global distillation (Yang et al.)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...options import check_bool, check_number
from ..base import DistillLoss, check_temperature, full_precision
from ..shapes import check_maps
from .align import channel_connector, check_same_channels, resize_like
from .masks import box_masks


@full_precision
def fgd_attention(maps: Tensor, temperature: float = 0.5) -> tuple[Tensor, Tensor]:
    """Where a map is active, and in which channels: softmaxes of mean absolute values, times how many these are.

    Args:
        maps: (N, C, H, W).
        temperature: T > 0 of the softmaxes (in the map's units).

    Returns:
        Of positions, (N, H, W), summing to H*W in each image; of channels, (N, C), summing to C.
    """
    absolute = maps.abs()
    positions = (absolute.mean(1).flatten(1) / temperature).softmax(1) * (maps.size(2) * maps.size(3))
    channels = (absolute.mean((2, 3)) / temperature).softmax(1) * maps.size(1)
    return positions.view(-1, *maps.shape[2:]), channels


@full_precision
def fgd_loss(
    student: Tensor,
    teacher: Tensor,
    foreground: Tensor,
    background: Tensor,
    temperature: float = 0.5,
    alpha: float = 1e-3,
    beta: float = 5e-4,
    gamma: float = 5e-4,
) -> Tensor:
    r"""The focal part of FGD: squared differences by the teacher's attention, and the difference of the attentions.

    Z. Yang, Z. Li, X. Jiang, Y. Gong, Z. Yuan, D. Zhao, C. Yuan, "Focal and Global Knowledge Distillation for
    Detectors", CVPR 2022, arXiv 2111.11837, equations 2 to 9. With the attentions S and A of :func:`fgd_attention`,

    ``1 / N * sum (alpha M_fg + beta M_bg) S_t A_t (F_t - F_s)**2 + gamma / N * (sum |S_s - S_t| + sum |A_s - A_t|)``

    All sums are over an image, so that the value grows with the size of the maps. Only the teacher's attention weighs.

    Args:
        student: (N, C, H, W), at the teacher's channels and size.
        teacher: (N, C, H, W), taken as constant.
        foreground: M_fg, (N, H, W), see :func:`box_masks`.
        background: M_bg, (N, H, W).
        temperature: T > 0 of the attentions.
        alpha: Weight of the foreground.
        beta: Weight of the background.
        gamma: Weight of the attentions' difference.

    Returns:
        Scalar, mean over the batch; 0 for an empty one.

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_channels(student, teacher)
    if student.shape != teacher.shape or not foreground.shape == background.shape == teacher[:, 0].shape:
        raise ValueError(
            f'student {tuple(student.shape)}, teacher {tuple(teacher.shape)}, masks {tuple(foreground.shape)} and '
            f'{tuple(background.shape)} given, expected (N, C, H, W) twice and (N, H, W) twice'
        )
    with torch.no_grad():
        positions_t, channels_t = fgd_attention(teacher, temperature)
        weights = (alpha * foreground + beta * background) * positions_t
    positions_s, channels_s = fgd_attention(student, temperature)
    by_position = torch.einsum('nchw,nc->nhw', (student - teacher.detach()).square(), channels_t)
    focal = (weights * by_position).sum()
    attention = (positions_s - positions_t).abs().sum() + (channels_s - channels_t).abs().sum()
    return (focal + gamma * attention) / max(len(student), 1)


class GlobalContext(nn.Module):
    """What a global context block adds to a map: a vector for each image, from a weighted mean of all its positions.

    Its last layer begins with zeros, so that it adds nothing at first.

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        # without the authors' bias, which a softmax does not see
        self.attention = nn.Conv2d(channels, 1, 1, bias=False)
        self.transform = nn.Sequential(
            nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels)
        )
        nn.init.kaiming_normal_(self.attention.weight, mode='fan_in', nonlinearity='relu')
        last = self.transform[3]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C)."""
        weights = self.attention(maps).flatten(1).softmax(1)
        context: Tensor = self.transform((maps.flatten(2) @ weights[:, :, None]).squeeze(2))
        return context


class FGDLoss(DistillLoss):
    """FGD, see :func:`fgd_loss` for its focal part, and two global context blocks, one for each side, both trained.

    ``loss = focal + lam / N * sum (F_t + R_t(F_t) - F_s - R_s(F_s))**2``, R being :class:`GlobalContext`. A 1x1
    convolution brings the student to the teacher's channels where they differ.

    Deviations: of maps of other sizes the student's is resized, bilinear, where the authors' code refuses them; boxes
    are scaled by the size of the padded batch, where the authors' code takes each image's own, which stretches the
    masks of images that are smaller (``by_image_size=True`` does so).

    Published (authors), on each neck output: see the defaults for RetinaNet and GFL; ``temperature=0.8, alpha=1.6e-3,
    beta=8e-4, gamma=8e-4, lam=8e-6`` for FCOS; ``alpha=5e-5, beta=2.5e-5, gamma=5e-5, lam=5e-7`` on the first four for
    Faster and Mask R-CNN; all with gradients clipped at norm 35.

    Args:
        temperature: T > 0 of the attentions.
        alpha: Weight of the foreground.
        beta: Weight of the background.
        gamma: Weight of the attentions' difference.
        lam: Weight of the global part (lambda in the paper); 0 makes no context blocks.
        by_image_size: Whether boxes are scaled by the size of each image before it was padded.
        loss_weight: Factor on the value, which grows with C*H*W.

    Raises:
        ValueError: If the temperature is not positive, a weight negative, or ``by_image_size`` no boolean.
    """

    needs: ClassVar[tuple[str, ...]] = ('padded_boxes', 'input_size', 'image_sizes')
    takes_rois: ClassVar[bool] = False

    def __init__(
        self,
        temperature: float = 0.5,
        alpha: float = 1e-3,
        beta: float = 5e-4,
        gamma: float = 5e-4,
        lam: float = 5e-6,
        by_image_size: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        self.temperature = check_temperature(temperature)
        self.alpha, self.beta = check_number(alpha, 'alpha'), check_number(beta, 'beta')
        self.gamma, self.lam = check_number(gamma, 'gamma'), check_number(lam, 'lam')
        self.by_image_size = check_bool(by_image_size, 'by_image_size')
        self.connector: nn.Module = nn.Identity()
        self.context_student: nn.Module = nn.Identity()
        self.context_teacher: nn.Module = nn.Identity()

    def build_connectors(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        """Make the global context blocks, and the convolution if it is needed.

        Raises:
            ValueError: If these are not two maps.
        """
        self.connector = channel_connector(student, teacher, bias=True)
        if self.lam:
            self.context_student, self.context_teacher = GlobalContext(teacher[1]), GlobalContext(teacher[1])

    def forward(
        self, student: Tensor, teacher: Tensor, padded_boxes: Tensor, input_size: tuple[int, int], image_sizes: Tensor
    ) -> Tensor:
        """Weighted FGD of two maps.

        Args:
            student: (N, C_s, H_s, W_s).
            teacher: (N, C_t, H_t, W_t), taken as constant.
            padded_boxes: (N, B, 4), see :func:`box_masks`.
            input_size: Height and width of the padded batch in pixels.
            image_sizes: (N, 2), height and width of each image in pixels.
        """
        check_maps(student, teacher)
        frame = image_sizes if self.by_image_size else input_size
        return self.loss_weight * self._compare(self.connector(student), teacher.detach(), padded_boxes, frame)

    @full_precision
    def _compare(self, student: Tensor, teacher: Tensor, boxes: Tensor, frame: Any) -> Tensor:
        student = resize_like(student, teacher)
        masks = box_masks(boxes, frame, (teacher.size(2), teacher.size(3)))
        value = fgd_loss(student, teacher, *masks, self.temperature, self.alpha, self.beta, self.gamma)
        if not self.lam:
            return value
        added = self.context_student(student) - self.context_teacher(teacher)
        whole = (student - teacher + added[:, :, None, None]).square().sum()
        return value + whole * (self.lam / max(len(student), 1))

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        weights = ', '.join(
            f'{name}={getattr(self, name):g}' for name in ('temperature', 'alpha', 'beta', 'gamma', 'lam')
        )
        return f'{weights}, by_image_size={self.by_image_size}, {super().extra_repr()}'
