"""VGG networks for CIFAR, with BatchNorm and a single linear classifier."""

from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from .staged_backbone import KAIMING_INIT, StagedBackbone, conv_norm

# Convolutions in each of the five blocks.
_CONVS = {8: (1, 1, 1, 1, 1), 13: (2, 2, 2, 2, 2)}
_CHANNELS = (64, 128, 256, 512, 512)


@MODELS.register_module()
class CIFARVGG(StagedBackbone):
    """VGG for 32x32 images (Simonyan, Zisserman, ICLR 2015, arXiv 1409.1556).

    As in the CRD benchmark (RepDistiller) and in mdistiller: BatchNorm after every convolution
    (which keeps its bias), no max-pooling before the last block, and none of the paper's large
    linear layers. ``vgg8``, which is not in the paper, has one convolution a block.

    The first of the five blocks is the ``stem`` (32x32 for a 32x32 image); ``layer1`` to ``layer4``
    give 16x16, 8x8, 4x4 and 4x4, all after the ReLU and before the next max-pooling.

    Args:
        depth: 8 or 13: the convolutions and the linear layers that the paper's classifier has.
        out_indices: Stages to return, from 0 (``layer1``) to 3; None is the last.
        init_cfg: How mmengine initialises the modules.

    Raises:
        ValueError: If ``depth`` is not one of those, or if ``out_indices`` names a stage that is
            not there.

    Example:
        >>> import torch
        >>> [tuple(f.shape) for f in CIFARVGG(8, out_indices=(0, 3))(torch.rand(1, 3, 32, 32))]
        [(1, 128, 16, 16), (1, 512, 4, 4)]
    """

    def __init__(
        self,
        depth: int,
        out_indices: Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = KAIMING_INIT,
    ) -> None:
        if depth not in _CONVS:
            raise ValueError(f'depth={depth} for CIFARVGG: expected one of {sorted(_CONVS)}.')
        blocks = []
        in_channels = 3
        for index, (convs, channels) in enumerate(zip(_CONVS[depth], _CHANNELS, strict=True)):
            pooled = 0 < index < len(_CHANNELS) - 1
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if pooled else []
            for _ in range(convs):
                layers += [*conv_norm(in_channels, channels, bias=True), nn.ReLU()]
                in_channels = channels
            blocks.append(nn.Sequential(*layers))
        super().__init__(blocks[0], blocks[1:], out_indices, init_cfg)
