"""OFD: comprehensive overhaul of feature distillation, margins and a partial distance before the ReLU (Heo et al.)."""

from collections.abc import Sequence
from math import pi, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from ..base import DistillLoss, full_precision
from ..norms import ConnectorNorm2d
from ..preceding_norm import find_norm, named_norm
from ..shapes import check_maps, pool_to_smaller

_RARELY = 1e-3  # a channel that is less often below 0 has the margin of three deviations


@full_precision
def ofd_loss(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    r"""Partial squared distance from the student's map to the teacher's map behind its margin ReLU.

    B. Heo, J. Kim, S. Yun, H. Park, N. Kwak, J. Y. Choi, "A Comprehensive Overhaul of Feature Distillation", ICCV
    2019, arXiv 1904.01866. With ``t' = max(t, m)``, m < 0 of each channel:

    ``1 / N * sum d(s, t')``, where ``d = 0 if s <= t' <= 0 else (t' - s)**2``

    over all channels and positions: where the teacher's ReLU would give 0, a student that is lower still is as good.

    Args:
        student: (N, C, H_s, W_s), after the connector, before the ReLU.
        teacher: (N, C, H_t, W_t), before the ReLU, taken as constant; the larger map is averaged down.
        margin: (C,), see :func:`ofd_margin`, taken as constant.

    Returns:
        Scalar >= 0, in squared units of the maps, sum over a map and mean over the batch; 0 for an empty batch.

    Raises:
        ValueError: If these are no maps of the same images and channels with a margin for each channel.

    Example:
        >>> import torch
        >>> s = torch.tensor([0.5, -2.0, -0.5, -0.9, 3.0]).view(5, 1, 1, 1)
        >>> t = torch.tensor([-3.0, -3.0, -0.2, -0.2, 1.0]).view(5, 1, 1, 1)
        >>> [ofd_loss(a[None], b[None], torch.tensor([-1.0])).item() for a, b in zip(s, t)]
        [2.25, 0.0, 0.0, 0.0, 4.0]
    """
    check_maps(student, teacher)
    if student.size(1) != teacher.size(1) or margin.shape != teacher.shape[1:2]:
        raise ValueError(
            f'student {tuple(student.shape)} (after the connector), teacher {tuple(teacher.shape)} and margin '
            f'{tuple(margin.shape)} given, expected as many channels of each'
        )
    student, teacher = pool_to_smaller(student, teacher.detach())
    target = torch.maximum(teacher, margin.detach()[:, None, None])
    counts = (student > target) | (target > 0)
    return ((target - student) * counts).square().sum() / max(len(student), 1)


def ofd_margin(bias: Tensor, weight: Tensor) -> Tensor:
    r"""What a normal variable is on average where it is below 0: E[x | x < 0], x ~ N(beta, gamma**2).

    ``beta - |gamma| phi(beta / gamma) / Phi(-beta / |gamma|)`` with the standard normal density and distribution;
    ``-3 |gamma|`` where ``Phi(-beta / |gamma|) <= 0.001``. A channel with ``gamma = 0`` and ``beta >= 0`` is never
    below 0, and has the margin 0.

    Args:
        bias: beta of a batch norm, (C,).
        weight: gamma of it, (C,); the sign does not matter.

    Returns:
        (C,), <= 0, computed in float64 and returned in the dtype of ``bias``.

    Example:
        >>> import torch
        >>> ofd_margin(torch.zeros(1), torch.ones(1)).item()  # -sqrt(2 / pi)
        -0.7978845834732056
    """
    beta, gamma = bias.double(), weight.double().abs()
    z = beta / gamma.clamp_min(torch.finfo(gamma.dtype).tiny)
    below = torch.special.ndtr(-z)
    density = (-z.square() / 2).exp() / sqrt(2 * pi)
    return torch.where(below > _RARELY, beta - gamma * density / below, -3 * gamma).to(bias.dtype)


def _margin_of(norm: BatchNorm) -> Tensor:
    if norm.affine:
        return ofd_margin(norm.bias, norm.weight)
    like = norm.running_var if norm.running_var is not None else torch.empty(norm.num_features)
    return ofd_margin(torch.zeros_like(like), torch.ones_like(like))


class Connector(nn.Module):
    """From the student's channels to the teacher's: a 1x1 convolution and a batch norm; and the teacher's margin.

    Args:
        in_channels: Of the student.
        out_channels: Of the teacher.
    """

    margin: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = ConnectorNorm2d(out_channels)
        nn.init.normal_(self.conv.weight, std=sqrt(2 / out_channels))
        self.register_buffer('margin', torch.full((out_channels,), float('nan')))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W)."""
        return self.norm(self.conv(x))


class OFDLoss(DistillLoss):
    r"""OFD, see :func:`ofd_loss`, at several stages: ``sum_i 2**-(n - i) L_i`` over i = 1 (shallow) to n (deep).

    ``on`` lists the stages from shallow to deep, of both networks before their last ReLU, as in
    ``backbone.layer1.1.relu:input``. The margins are those of the batch norm that stands before the ReLU, in a residual
    block the last one of its main path, as in the authors' code, although the shortcut is added in between. They are
    taken from the teacher's weights once, before training, and kept in checkpoints.

    Deviations: the teacher is in evaluation mode, where the authors' and mdistiller's code normalise by the statistics
    of the batch; and of maps of other sizes the larger is averaged down, where mdistiller does so with the teacher's.

    Args:
        norms: The teacher's batch norms, a path for each tap, where they cannot be found by themselves; as in
            ``['backbone.layer1.1.bn2', 'backbone.layer2.1.bn2']``.
        loss_weight: Factor on the value, which is a sum over the map: 1e-3 is the authors' on CIFAR and the default,
            1e-4 theirs on ImageNet, 1e-5 on VOC segmentation.

    Raises:
        ValueError: If ``norms`` is no list of words or the weight is negative.
    """

    relates_layers: ClassVar[bool] = True

    def __init__(self, norms: Sequence[str] | None = None, loss_weight: float = 1e-3) -> None:
        super().__init__(loss_weight)
        if norms is not None and (
            not isinstance(norms, (list, tuple)) or not norms or not all(isinstance(p, str) and p for p in norms)
        ):
            raise ValueError(
                f"norms={norms!r} given, expected the paths of the teacher's batch norms, one for each tap, as in "
                "['backbone.layer1.1.bn2', 'backbone.layer2.1.bn2'], or None"
            )
        self.norms = None if norms is None else list(norms)
        self.connectors = nn.ModuleList()
        self._found: list[str] = []

    def build_connectors(self, student: Sequence[Any], teacher: Sequence[Any]) -> None:
        """Make the connectors, and find the batch norms of the margins.

        The margins are those of the teacher as it is; :meth:`prepare` takes them anew when its weights are loaded.

        Args:
            student: Shapes (N, C, H, W).
            teacher: As many, of :class:`mmkd_plugin.facts.TapShape`, which know the network they were read in.

        Raises:
            ValueError: If these are no maps or not as many of each, or if a batch norm is not found or has other
                channels.
        """
        shapes = (*student, *teacher)
        if not student or len(student) != len(teacher) or any(len(shape) != 4 for shape in shapes):
            raise ValueError(
                f'student stages {[tuple(s) for s in student]} and teacher stages {[tuple(t) for t in teacher]} given, '
                'expected as many maps (N, C, H, W) of each, from shallow to deep'
            )
        if self.norms is not None and len(self.norms) != len(teacher):
            raise ValueError(f'norms={self.norms!r} given, expected {len(teacher)} paths: one for each tap')
        if any(getattr(shape, 'tap', None) is None for shape in teacher):
            raise ValueError(
                f'teacher stages {[tuple(t) for t in teacher]} given, expected shapes that know where they were read, '
                'as margins are those of the batch norms there: mmkd_plugin.facts.TapShape.of(value, tap, network)'
            )
        self._found = self.norms or [find_norm(shape.model, shape.tap) for shape in teacher]
        self.connectors = nn.ModuleList(Connector(s[1], t[1]) for s, t in zip(student, teacher, strict=True))
        for shape, path in zip(teacher, self._found, strict=True):
            norm = named_norm(shape.model, path)
            if norm.num_features != shape[1]:
                raise ValueError(
                    f"the batch norm '{path}' has {norm.num_features} channels, and '{shape.tap}' {shape[1]}, expected "
                    "as many: name the right one of each tap in norms=['path', ...]"
                )
        self._take_margins([named_norm(shape.model, path) for shape, path in zip(teacher, self._found, strict=True)])

    def prepare(self, facts: Any) -> None:
        """Take the margins from the teacher's weights."""
        *_, teacher = facts.networks.values()  # the learner comes first
        self._take_margins([named_norm(teacher, path) for path in self._found])

    @torch.no_grad()
    def _take_margins(self, norms: Sequence[BatchNorm]) -> None:
        for connector, norm in zip(self.connectors, norms, strict=True):
            connector.margin.copy_(_margin_of(norm))  # type: ignore[operator]

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Weighted sum of :func:`ofd_loss` over the stages; lists of maps, shallow to deep."""
        if not len(student) == len(teacher) == len(self.connectors):
            raise ValueError(
                f'{len(student)} student and {len(teacher)} teacher stages given, expected {len(self.connectors)} of '
                'each'
            )
        values = []
        for number, (connector, s, t) in enumerate(zip(self.connectors, student, teacher, strict=True), start=1):
            check_maps(s, t)
            values.append(ofd_loss(connector(s), t, connector.margin) / 2 ** (len(student) - number))  # type: ignore[arg-type]
        return self.loss_weight * torch.stack(values).sum()

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'norms={self.norms!r}, {super().extra_repr()}'
