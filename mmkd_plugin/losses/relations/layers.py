"""What losses that relate the layers of a network share: checking lists of maps, and making channels equal."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ..base import DistillLoss
from ..norms import ConnectorNorm2d

Shapes = Sequence[Sequence[int]]


def check_layers(student: Shapes, teacher: Shapes, channels: bool = True) -> None:
    """Check that a layer can be related with the next on both sides, and the results compared.

    Args:
        student: Shapes of its layers.
        teacher: Shapes of its layers.
        channels: Whether each layer must have as many channels on both sides.

    Raises:
        ValueError: If these are not two lists of as many maps (N, C, H, W), two at least, of the same N images; or if
            channels differ.
    """
    shapes = [*map(tuple, student), *map(tuple, teacher)]
    images = {shape[0] if len(shape) == 4 else None for shape in shapes}
    if len(student) != len(teacher) or len(student) < 2 or len(images) > 1 or None in images:
        raise ValueError(
            f'student layers {shapes[: len(student)]} and teacher layers {shapes[len(student) :]} given, expected as '
            'many of each, two or more, all maps (N, C, H, W) of the same N images: list the modules at the ends of '
            'stages, in their order'
        )
    differing = [f'{tuple(s)} and {tuple(t)}' for s, t in zip(student, teacher, strict=True) if s[1] != t[1]]
    if channels and differing:
        raise ValueError(
            f'layers of student and teacher with different channels given: {"; ".join(differing)}; expected as many in '
            "each: connector='conv_bn' makes the student's equal to the teacher's"
        )


class LayerRelationLoss(DistillLoss):
    """Base of losses that relate each layer of a network with the next, and compare that with another network.

    Args:
        connector: ``conv_bn``: a learnable 1x1 convolution with batch norm at each layer of the student makes its
            channels equal to the teacher's. None: they are equal already.
        loss_weight: Factor on the value.
        **more: For a second base class.

    Raises:
        ValueError: If the connector is unknown or the weight is negative.
    """

    relates_layers: ClassVar[bool] = True

    def __init__(self, connector: str | None = None, loss_weight: float = 1.0, **more: Any) -> None:
        super().__init__(loss_weight=loss_weight, **more)
        if connector not in (None, 'conv_bn'):
            raise ValueError(f"connector={connector!r} given, expected 'conv_bn' or None")
        self.connector = connector
        self.connectors = nn.ModuleList()

    def build_connectors(self, student: Shapes, teacher: Shapes) -> None:
        """Make a connector for each layer, if there are to be some.

        Raises:
            ValueError: As :func:`check_layers`.
        """
        check_layers(student, teacher, channels=self.connector is None)
        if self.connector:
            self.connectors = nn.ModuleList(
                nn.Sequential(nn.Conv2d(s[1], t[1], 1, bias=False), ConnectorNorm2d(t[1]))
                for s, t in zip(student, teacher, strict=True)
            )

    def connected(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
        """The student's layers with as many channels as the teacher's.

        Raises:
            ValueError: As :func:`check_layers`.
        """
        check_layers([x.shape for x in student], [x.shape for x in teacher], channels=self.connector is None)
        if not self.connector:
            return list(student)
        return [connector(x) for connector, x in zip(self.connectors, student, strict=True)]

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'connector={self.connector!r}, {super().extra_repr()}'
