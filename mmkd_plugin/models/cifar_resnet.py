"""CIFAR ResNets of depth 6n+2, as the CRD benchmark trains them."""

from collections.abc import Sequence
from itertools import pairwise

from mmengine.registry import MODELS
from torch import Tensor, nn

from .staged_backbone import KAIMING_INIT, StagedBackbone, conv_norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the shortcut is a 1x1 convolution where shapes change.

    The input of ``relu2`` is the pre-activation that AB, OFD and ReviewKD compare.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution, in pixels.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv_norm(in_channels, channels, stride=stride)
        self.relu1 = nn.ReLU()
        self.conv2, self.norm2 = conv_norm(channels, channels)
        same_shape = stride == 1 and in_channels == channels
        self.shortcut = (
            nn.Identity()
            if same_shape
            else nn.Sequential(*conv_norm(in_channels, channels, kernel_size=1, stride=stride))
        )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        residual = self.relu1(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        return self.relu2(residual + self.shortcut(x))


@MODELS.register_module()
class CIFARResNet(StagedBackbone):
    """ResNet of depth 6n+2 for 32x32 images (He et al., CVPR 2016, arXiv 1512.03385, section 4.2).

    As in the CRD benchmark (RepDistiller) and in mdistiller, which deviate from the paper: where
    shapes change the shortcut is a 1x1 convolution with BatchNorm (the paper's option B; on CIFAR
    the paper pads with zeros). ``resnet20`` and ``resnet56`` have the paper's widths; the ``x4``
    networks, e.g. ``resnet8x4``, have ``channels=(32, 64, 128, 256)``.

    For a 32x32 image ``stem`` and ``layer1`` give 32x32 maps, ``layer2`` 16x16, ``layer3`` 8x8, all
    after the ReLU.

    Args:
        depth: 6n + 2: convolutions of the residual branches, plus stem and classifier.
        channels: Channels of the stem and of the three stages.
        out_indices: Stages to return, from 0 (``layer1``) to 2; None is the last.
        init_cfg: How mmengine initialises the modules.

    Raises:
        ValueError: If ``depth`` is not 6n+2, if there are not four ``channels``, or if
            ``out_indices`` names a stage that is not there.

    Example:
        >>> import torch
        >>> [tuple(f.shape) for f in CIFARResNet(8, out_indices=(0, 2))(torch.rand(1, 3, 32, 32))]
        [(1, 16, 32, 32), (1, 64, 8, 8)]
    """

    def __init__(
        self,
        depth: int,
        channels: Sequence[int] = (16, 16, 32, 64),
        out_indices: Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = KAIMING_INIT,
    ) -> None:
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f'depth={depth} for CIFARResNet: expected 6n+2, e.g. 8, 20, 32, 56.')
        if len(channels) != 4:
            raise ValueError(
                f'channels={channels!r} for CIFARResNet: expected four numbers, of the stem and of the three stages.'
            )
        blocks = (depth - 2) // 6
        stages = []
        for stage, (in_channels, width) in enumerate(pairwise(channels)):
            first = BasicBlock(in_channels, width, stride=1 if stage == 0 else 2)
            rest = [BasicBlock(width, width, stride=1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
        stem = nn.Sequential(*conv_norm(3, channels[0]), nn.ReLU())
        super().__init__(stem, stages, out_indices, init_cfg)
