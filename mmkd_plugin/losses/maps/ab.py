"""AB: activation boundaries (Heo et al.)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...options import check_bool, check_number
from ..base import DistillLoss, full_precision
from ..norms import ConnectorNorm2d
from ..shapes import check_maps, pool_to_smaller


@full_precision
def ab_loss(student: Tensor, teacher: Tensor, margin: float = 1.0) -> Tensor:
    r"""How far the student's neurons are from being on and off where the teacher's are.

    B. Heo, M. Lee, S. Yun, J. Y. Choi, "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden
    Neurons", AAAI 2019, arXiv 1811.03233: the differentiable form of comparing which
    neurons are on. For s and t before the ReLU and the margin m

    ``1 / N * sum relu(m - s)**2 where t > 0, relu(m + s)**2 where t <= 0``

    over all channels and positions. It is 0 only where every s has the sign of its t and is at least m away from 0, so
    not at s = t.

    Args:
        student: (N, C, H_s, W_s), after the connector.
        teacher: (N, C, H_t, W_t), of which the signs count, taken as constant; the larger map is averaged down.
        margin: Distance from 0 that is far enough, >= 0, in units of the student's map.

    Returns:
        Scalar >= 0, in squared units of the student's map, sum over the elements of a map and mean over the batch; 0
        for an empty batch.

    Raises:
        ValueError: If these are no maps of the same images with as many channels, or the margin is negative.

    Example:
        >>> import torch
        >>> s, t = torch.tensor([0.5, -2.0, 2.0, -0.5]), torch.tensor([-1.0, -1.0, 1.0, 1.0])
        >>> [ab_loss(a.view(1, 1, 1, 1), b.view(1, 1, 1, 1)).item() for a, b in zip(s, t)]
        [2.25, 0.0, 0.0, 2.25]
    """
    check_maps(student, teacher)
    check_number(margin, 'margin')
    if student.size(1) != teacher.size(1):
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} given, expected maps of as many '
            'channels: a connector makes them so'
        )
    student, teacher = pool_to_smaller(student, teacher.detach())
    wrong_side = torch.where(teacher > 0, -student, student)
    return F.relu(wrong_side + margin).square().sum() / max(len(student), 1)


class ABLoss(DistillLoss):
    r"""AB, see :func:`ab_loss`, at several stages: ``sum_i 2**-(n - i) L_i`` over i = 1 (shallow) to n (deep).

    ``on`` lists the stages from shallow to deep, of both networks before their last ReLU, as in
    ``backbone.layer1.1.relu:input``. It is an initialisation: published is a first stage of this loss alone, with
    ``schedule=dict(end=N)`` and ``task_loss=dict(schedule=dict(begin=N))``, and then training without it. The connector
    of a stage is a 1x1 convolution and a batch norm, without a ReLU.

    Args:
        margin: See :func:`ab_loss`.
        skip_equal: No connector where both networks have as many channels, as in RepDistiller; the authors' code has
            one at every stage.
        loss_weight: Factor on the value; 3/1000 stands inside the loss of the authors' code and of RepDistiller, which
            sum over all elements as this one does.

    Raises:
        ValueError: If the margin or the weight is negative, or ``skip_equal`` is no boolean.
    """

    relates_layers: ClassVar[bool] = True

    def __init__(self, margin: float = 1.0, skip_equal: bool = False, loss_weight: float = 0.003) -> None:
        super().__init__(loss_weight)
        self.margin = check_number(margin, 'margin')
        self.skip_equal = check_bool(skip_equal, 'skip_equal')
        self.connectors = nn.ModuleList()

    def build_connectors(self, student: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]]) -> None:
        """Make a connector for each stage.

        Raises:
            ValueError: If a stage is no map, or the lists differ in length.
        """
        if not student or len(student) != len(teacher) or any(len(shape) != 4 for shape in (*student, *teacher)):
            raise ValueError(
                f'student stages {[tuple(s) for s in student]} and teacher stages {[tuple(t) for t in teacher]} given, '
                'expected as many of each, from shallow to deep, all maps (N, C, H, W) before a ReLU'
            )
        self.connectors = nn.ModuleList(
            nn.Identity()
            if self.skip_equal and s[1] == t[1]
            else nn.Sequential(nn.Conv2d(s[1], t[1], 1, bias=False), ConnectorNorm2d(t[1]))
            for s, t in zip(student, teacher, strict=True)
        )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Weighted sum of :func:`ab_loss` over the stages; lists of tensors, shallow to deep."""
        if not len(student) == len(teacher) == len(self.connectors):
            raise ValueError(
                f'{len(student)} student and {len(teacher)} teacher stages given, expected {len(self.connectors)} of '
                'each'
            )
        values = []
        for depth, (connector, s, t) in enumerate(zip(self.connectors, student, teacher, strict=True), start=1):
            check_maps(s, t)
            values.append(2.0 ** (depth - len(student)) * ab_loss(connector(s), t, self.margin))
        return self.loss_weight * torch.stack(values).sum()

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'margin={self.margin:g}, skip_equal={self.skip_equal}, {super().extra_repr()}'
