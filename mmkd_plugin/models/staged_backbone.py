"""What our backbones share: a stem, named stages, and the choice of which outputs to return."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

# The CIFAR benchmark's initialisation: He et al. 2015 over the fan-out, biases 0. BatchNorm starts
# as the identity by torch's default.
KAIMING_INIT = {'type': 'Kaiming', 'layer': 'Conv2d', 'mode': 'fan_out', 'nonlinearity': 'relu'}


class StagedBackbone(BaseModule):
    """A ``stem`` followed by the stages ``layer1``, ``layer2``, …, each ending in a ReLU.

    The stages are children, so ``backbone.layer2`` is a path for a tap. In the terms of the CRD
    benchmark (RepDistiller) and of mdistiller, ``stem`` gives the feature f0 and ``layerK`` gives
    fK. No ReLU works in place: what precedes one can be tapped too and is not overwritten.

    Args:
        stem: From the images to the first stage's input.
        stages: The stages, in order.
        out_indices: Which stages' outputs to return, counted from 0 (``layer1``), increasing. None
            is the last stage alone.
        init_cfg: How mmengine initialises the modules; None leaves torch's defaults.

    Raises:
        ValueError: If ``out_indices`` is empty, not increasing, or names a stage that is not there.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        out_indices: Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        last = len(stages) - 1
        indices = (last,) if out_indices is None else tuple(out_indices)
        in_range = all(0 <= index <= last for index in indices)
        if not indices or not in_range or list(indices) != sorted(set(indices)):
            raise ValueError(
                f'out_indices={out_indices!r} for {type(self).__name__}: expected increasing '
                f'stage indices from 0 (layer1) to {last} (layer{last + 1}), e.g. ({last},).'
            )
        self.out_indices = indices
        self.stem = stem
        self.stage_names = tuple(f'layer{number}' for number in range(1, len(stages) + 1))
        for name, stage in zip(self.stage_names, stages, strict=True):
            self.add_module(name, stage)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the chosen stages' outputs.

        Args:
            images: Normalised images (N, 3, H, W).

        Returns:
            One feature map (N, C, H', W') per entry of ``out_indices``.
        """
        features = self.stem(images)
        outputs = []
        for index, name in enumerate(self.stage_names):
            features = getattr(self, name)(features)
            if index in self.out_indices:
                outputs.append(features)
        return tuple(outputs)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> list[nn.Module]:
    """A convolution that keeps the size (up to the stride), and the BatchNorm after it."""
    return [
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=bias,
        ),
        nn.BatchNorm2d(out_channels),
    ]
