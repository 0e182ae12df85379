"""MobileNet, version 1, for ImageNet."""

from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from .staged_backbone import StagedBackbone, conv_norm


@MODELS.register_module()
class MobileNetV1(StagedBackbone):
    """MobileNet of full width (Howard et al., arXiv 1704.04861, table 1).

    The thirteen separable convolutions are grouped as distillation compares them with a ResNet-50
    (OFD, ReviewKD, mdistiller): for a 224x224 image ``stem`` gives 112x112 maps of 64 channels;
    ``layer1`` to ``layer4`` give 56, 28, 14 and 7 pixels with 128, 256, 512 and 1024 channels, all
    after the ReLU.

    Args:
        out_indices: Stages to return, from 0 (``layer1``) to 3; None is the last.
        init_cfg: How mmengine initialises the modules. None, torch's own initialisation, is what
            those codes use.

    Raises:
        ValueError: If ``out_indices`` names a stage that is not there.

    Example:
        >>> import torch
        >>> [tuple(f.shape) for f in MobileNetV1()(torch.rand(1, 3, 64, 64))]
        [(1, 1024, 2, 2)]
    """

    def __init__(
        self,
        out_indices: Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        stem = nn.Sequential(*conv_norm(3, 32, stride=2), nn.ReLU(), _separable(32, 64))
        stages = []
        in_channels = 64
        for channels, convs in ((128, 2), (256, 2), (512, 6), (1024, 2)):
            first = _separable(in_channels, channels, stride=2)
            rest = [_separable(channels, channels) for _ in range(convs - 1)]
            stages.append(nn.Sequential(first, *rest))
            in_channels = channels
        super().__init__(stem, stages, out_indices, init_cfg)


def _separable(in_channels: int, channels: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution per channel, then a 1x1 convolution across them."""
    return nn.Sequential(
        *conv_norm(in_channels, in_channels, stride=stride, groups=in_channels),
        nn.ReLU(),
        *conv_norm(in_channels, channels, kernel_size=1),
        nn.ReLU(),
    )
