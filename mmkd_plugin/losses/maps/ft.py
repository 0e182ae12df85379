"""FT: factor transfer, a paraphraser trained on the teacher and then used frozen (Kim et al.)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ...options import check_bool, check_number
from ..base import DistillLoss, full_precision
from ..norms import ConnectorNorm2d
from ..shapes import check_maps, pool_to_smaller

_SHORTEST = 1e-8  # a shorter factor has no direction
_SLOPE = 0.1
Distance = Literal['l2', 'l1']
Factor = Literal['vector', 'attention']


@full_precision
def paraphraser_loss(rebuilt: Tensor, teacher: Tensor, distance: Distance = 'l2') -> Tensor:
    """How far a teacher's map is from what an autoencoder makes of it, as a mean over all elements.

    J. Kim, S. Park, N. Kwak, "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS 2018,
    arXiv 1802.04977.

    Args:
        rebuilt: (N, C, H, W).
        teacher: (N, C, H, W), taken as constant.
        distance: ``l2``, the mean of the squares, as RepDistiller: the paper's squared norm over the number of elements
            of a map; or ``l1``, the mean of the absolute values, as the authors' code.

    Returns:
        Scalar >= 0, in (squared, for ``l2``) units of the map; 0 for an empty batch.

    Raises:
        ValueError: If the shapes differ, or the distance is unknown.

    Example:
        >>> import torch
        >>> x = torch.zeros(2, 3, 4, 4)
        >>> [paraphraser_loss(x + 0.5, x, distance).item() for distance in ('l2', 'l1')]
        [0.25, 0.5]
    """
    if rebuilt.ndim != 4 or rebuilt.shape != teacher.shape:
        raise ValueError(
            f'rebuilt {tuple(rebuilt.shape)} and teacher {tuple(teacher.shape)} given, expected two feature maps '
            '(N, C, H, W) of equal shape'
        )
    _check_distance(distance)
    difference = rebuilt - teacher.detach()
    powers = difference.square() if distance == 'l2' else difference.abs()
    return powers.sum() / max(powers.numel(), 1)


@full_precision
def ft_loss(student: Tensor, teacher: Tensor, factor: Factor = 'vector') -> Tensor:
    r"""Mean absolute difference of two factors that are scaled to length 1.

    J. Kim, S. Park, N. Kwak, "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS 2018,
    arXiv 1802.04977, with p = 1: ``1 / (N D) * sum abs(u_s / |u_s| - u_t / |u_t|)``. ``vector`` is the paper's and the
    authors' code's, whose weight is 500: u has all D = C*H*W values of a factor. ``attention`` is RepDistiller's, to
    which belong its weight of 200 and the figures of the CRD benchmark: u has the D = H*W means of squared channels.

    Args:
        student: Its factor, (N, C, H_s, W_s).
        teacher: Its factor, (N, C, H_t, W_t), taken as constant; the larger map is averaged down.
        factor: What of a factor is compared.

    Returns:
        Scalar >= 0, dimensionless, mean over the batch and over the D values; 0 for an empty batch.

    Raises:
        ValueError: If these are no maps of the same images with as many channels, or ``factor`` is unknown.

    Example:
        >>> import torch
        >>> left, right = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
        >>> ft_loss(left, right).item()  # orthogonal, one value each: 2 / D
        1.0
    """
    check_maps(student, teacher)
    _check_factor(factor)
    if student.size(1) != teacher.size(1):
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} given, expected factors of as many '
            'channels, which a translator makes of the student'
        )
    student, teacher = pool_to_smaller(student, teacher.detach())
    difference = _direction(student, factor) - _direction(teacher, factor)
    return difference.abs().sum() / max(difference.numel(), 1)


def _direction(maps: Tensor, factor: Factor) -> Tensor:
    """(N, D) with rows of length 1; 0 without gradient for a factor of nothing, where the slope would be infinite."""
    rows = (maps if factor == 'vector' else maps.square().mean(1)).flatten(1)
    length = rows.norm(dim=1, keepdim=True)
    return rows * torch.where(length > _SHORTEST, 1 / length.clamp_min(_SHORTEST), 0)


def _check_distance(distance: str) -> None:
    if distance not in ('l2', 'l1'):
        raise ValueError(f"distance={distance!r} given, expected 'l2' or 'l1'")


def _check_factor(factor: str) -> None:
    if factor not in ('vector', 'attention'):
        raise ValueError(f"factor={factor!r} given, expected 'vector' or 'attention'")


def _layers(kind: type[nn.Module], channels: Sequence[int], norm: bool = False) -> nn.Sequential:
    """3x3 layers that keep height and width, each with a LeakyReLU behind it."""
    made: list[nn.Module] = []
    for inside, outside in pairwise(channels):
        made.append(kind(inside, outside, 3, padding=1, bias=not norm))
        made += [ConnectorNorm2d(outside)] if norm else []
        made.append(nn.LeakyReLU(_SLOPE))
    return nn.Sequential(*made)


class ParaphraserLoss(DistillLoss):
    """FT's first stage: an autoencoder of the teacher's map, see :func:`paraphraser_loss`; the student is not read.

    Three 3x3 convolutions C -> C -> rate C -> rate C and three transposed ones back, each with a bias and a LeakyReLU
    of slope 0.1. What the convolutions put out is the factor, which :class:`FTLoss` compares with the student's when
    this loss has ended, so it has ``schedule=dict(end=N)``.

    Args:
        rate: Channels of the factor for each channel of the teacher's, the paper's k, > 0.
        distance: ``l2`` (paper up to a constant factor, and RepDistiller) or ``l1`` (the authors' code).
        loss_weight: Factor on the value; 1 in both codes. For the paper's sum over a map, C*H*W with ``l2``.

    Raises:
        ValueError: If ``rate`` is not above 0, the distance is unknown or the weight is negative.
    """

    sides: ClassVar[tuple[str, ...]] = ('teacher',)

    def __init__(self, rate: float = 0.5, distance: Distance = 'l2', loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.rate = check_number(rate, 'rate', above=True)
        _check_distance(distance)
        self.distance: Distance = distance
        self.encoder: nn.Module = nn.Identity()
        self.decoder: nn.Module = nn.Identity()
        #: Of the factor.
        self.channels = 0

    def build_connectors(self, teacher: Sequence[int]) -> None:
        """Make encoder and decoder.

        Raises:
            ValueError: If this is no map.
        """
        _check_map(teacher)
        own = teacher[1]
        self.channels = max(int(self.rate * own), 1)
        self.encoder = _layers(nn.Conv2d, (own, own, self.channels, self.channels))
        self.decoder = _layers(nn.ConvTranspose2d, (self.channels, self.channels, own, own))

    def encode(self, teacher: Tensor) -> Tensor:
        """The factor: (N, C, H, W) to (N, rate C, H, W)."""
        _check_map(teacher.shape)
        return self.encoder(teacher.detach())

    def forward(self, teacher: Tensor) -> Tensor:
        """Weighted :func:`paraphraser_loss` of the teacher's map."""
        return self.loss_weight * paraphraser_loss(self.decoder(self.encode(teacher)), teacher, self.distance)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'rate={self.rate:g}, distance={self.distance!r}, {super().extra_repr()}'


class FTLoss(DistillLoss):
    """FT's second stage: the student's factor against the paraphraser's, see :func:`ft_loss`.

    The translator, three 3x3 convolutions C_s -> C_s -> C_f -> C_f with a LeakyReLU of slope 0.1 each, makes the
    student's factor; it is trained with the student. The paraphraser is used as its stage left it, without a
    gradient. Usual is the last map of both networks.

    Args:
        paraphraser: The entry of ``losses`` that trains it, a :class:`ParaphraserLoss` on the same map of the teacher,
            which must have ended before this loss begins.
        factor: ``vector`` (paper and authors' code) or ``attention`` (RepDistiller).
        norm: Batch norms in the translator, as in RepDistiller, in place of the biases.
        loss_weight: Factor on the value; 500 is the authors' with ``vector``, 200 RepDistiller's with ``attention``.

    Raises:
        ValueError: If an argument is unknown or the weight is negative.
    """

    uses: ClassVar[dict[str, str]] = {'paraphraser': 'ParaphraserLoss'}

    def __init__(
        self,
        paraphraser: str = 'loss_paraphraser',
        factor: Factor = 'vector',
        norm: bool = False,
        loss_weight: float = 500.0,
    ) -> None:
        super().__init__(loss_weight)
        self.paraphraser = paraphraser
        _check_factor(factor)
        self.factor: Factor = factor
        self.norm = check_bool(norm, 'norm')
        self.translator: nn.Module = nn.Identity()

    def build_connectors(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        """Make the translator.

        Raises:
            ValueError: If these are no two maps.
        """
        _check_map(student, teacher)
        channels = self.used('paraphraser').channels
        self.translator = _layers(nn.Conv2d, (student[1], student[1], channels, channels), self.norm)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`ft_loss` of the translated student and the paraphrased teacher."""
        check_maps(student, teacher)
        with torch.no_grad():
            target = self.used('paraphraser').encode(teacher)
        return self.loss_weight * ft_loss(self.translator(student), target, self.factor)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'paraphraser={self.paraphraser!r}, factor={self.factor!r}, norm={self.norm}, {super().extra_repr()}'


def _check_map(*shapes: Any) -> None:
    if any(len(shape) != 4 for shape in shapes):
        raise ValueError(
            f'{" and ".join(str(tuple(shape)) for shape in shapes)} given, expected feature maps (N, C, H, W): tap '
            'modules whose output still has height and width'
        )
