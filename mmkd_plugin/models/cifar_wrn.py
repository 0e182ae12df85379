"""Wide residual networks for CIFAR, of depth 6n+4."""

from collections import OrderedDict
from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import Tensor, nn

from .staged_backbone import KAIMING_INIT, StagedBackbone


class PreActBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, and a shortcut.

    A block that changes the shape feeds its first BatchNorm and ReLU to *both* branches. We
    therefore let the module before the block end in that pair (``activated``), so that a stage's
    output is what the next stage really reads. Function and parameters stay the paper's.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution, in pixels.
        activated: Whether the input has been through the first BatchNorm and ReLU already.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, activated: bool) -> None:
        super().__init__()
        self.preact1 = nn.Identity() if activated else nn.Sequential(*_norm_relu(in_channels))
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.preact2 = nn.Sequential(*_norm_relu(channels))
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if activated else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        residual = self.conv2(self.preact2(self.conv1(self.preact1(x))))
        return residual + self.shortcut(x)


@MODELS.register_module()
class CIFARWideResNet(StagedBackbone):
    """Wide residual network for 32x32 images (Zagoruyko, Komodakis, BMVC 2016, arXiv 1605.07146).

    As in the CRD benchmark (RepDistiller) and in mdistiller: no dropout; shortcuts are bare 1x1
    convolutions. ``wrn-40-2`` is ``depth=40, widen_factor=2``.

    The output of ``layer1``, ``layer2``, ``layer3`` (32x32, 16x16, 8x8 for a 32x32 image) is the
    stage's sum of residuals after the BatchNorm and ReLU that follow it. Two more taps lie within a
    stage: ``layerK.norm``, the same before the ReLU, and ``layerK.blockN`` (N the last), the bare
    sum, before the BatchNorm too.

    Args:
        depth: 6n + 4: convolutions of the residual branches and of the three shortcuts, plus stem
            (the classifier does not count).
        widen_factor: How many times wider than 16, 32, 64 channels the stages are.
        out_indices: Stages to return, from 0 (``layer1``) to 2; None is the last.
        init_cfg: How mmengine initialises the modules.

    Raises:
        ValueError: If ``depth`` is not 6n+4, if ``widen_factor`` is below 1, or if ``out_indices``
            names a stage that is not there.

    Example:
        >>> import torch
        >>> [tuple(f.shape) for f in CIFARWideResNet(10, 2)(torch.rand(1, 3, 32, 32))]
        [(1, 128, 8, 8)]
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int,
        out_indices: Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = KAIMING_INIT,
    ) -> None:
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f'depth={depth} for CIFARWideResNet: expected 6n+4, e.g. 10, 16, 28, 40.')
        if widen_factor < 1:
            raise ValueError(f'widen_factor={widen_factor} for CIFARWideResNet: expected at least 1.')
        blocks = (depth - 4) // 6
        # With widen_factor 1 the first stage keeps the stem's shape: its first block activates its
        # residual branch alone, and the stem stays bare.
        widens = widen_factor > 1
        in_channels = 16
        stem = nn.Sequential(nn.Conv2d(3, in_channels, 3, padding=1, bias=False))
        if widens:
            stem.extend(_norm_relu(in_channels))
        stages = []
        for stage in range(3):
            width = 16 * widen_factor * 2**stage
            children: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(blocks):
                reshapes = block == 0 and (stage > 0 or widens)
                stride = 2 if block == 0 and stage > 0 else 1
                children[f'block{block + 1}'] = PreActBlock(in_channels, width, stride, reshapes)
                in_channels = width
            children['norm'], children['relu'] = _norm_relu(width)
            stages.append(nn.Sequential(children))
        super().__init__(stem, stages, out_indices, init_cfg)


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]
