"""IRG: instance relationship graphs, within a layer and between two (Liu et al.)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...options import check_bool, check_number
from ..base import full_precision
from ..gather import SampleRelationLoss
from ..shapes import as_vectors
from .distances import squared_distances

Form = Literal['caffe', 'mean']


@full_precision
def irg_loss(
    student: Tensor, teacher: Tensor, vertex_weight: float = 0.0, form: Form = 'caffe', constant_max: bool = False
) -> Tensor:
    r"""Difference of two instance relationship graphs: of their edges, and of their vertices if asked for.

    Y. Liu, J. Cao, B. Li, C. Yuan, W. Hu, Y. Li, Y. Duan, "Knowledge Distillation via Instance Relationship Graph",
    CVPR 2019 (no arXiv number). The edges are the squared Euclidean distances of all pairs of samples, over the largest
    of them; ``D = edges^s - edges^t`` gives

    ``sum(D**2) / (2 N)`` (form ``caffe``, the authors' EuclideanLoss) or ``mean(D**2)`` (form ``mean``, as in ports).

    The first is N / 2 times the second. The vertices are the vectors themselves, with D their difference.

    Args:
        student: (N, D_s), or maps (N, C_s, H, W), which are averaged over their positions.
        teacher: (N, D_t) or maps, taken as constant.
        vertex_weight: Factor on the vertex term, relative to the edges; 0 leaves it out.
        form: ``caffe`` or ``mean``.
        constant_max: Take the largest distance as constant, so that the gradient is not that of the value.

    Returns:
        Scalar >= 0, dimensionless; 0 for an empty batch.

    Raises:
        ValueError: If these are no vectors or maps of the same samples, if vertices of different dimensions are to be
            compared, or if the form is unknown.

    Example:
        >>> import torch  # edges 0-1, 0-2, 1-2: 1/4, 1, 1/4 and 1, 1/4, 1/4
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [2.0], [1.0]])
        >>> irg_loss(x, y).item(), irg_loss(x, y, form='mean').item()  # four entries of 9 differ by 3/4
        (0.375, 0.25)
    """
    _check_form(form)
    student, teacher = as_vectors(student, teacher.detach())
    if vertex_weight and student.size(1) != teacher.size(1):
        raise ValueError(
            f'student vertices {tuple(student.shape)} and teacher vertices {tuple(teacher.shape)} given, expected '
            'vectors of equal length for vertex_weight > 0. With vertex_weight=0 any will do; what has the same length '
            "in both networks are the logits: dict(type='FitNetLoss', regressor='identity', on='head.fc')"
        )
    if not (student.numel() and teacher.numel()):
        return student[:0].sum()
    total = _distance(edges(student, constant_max), edges(teacher), form)
    return total + vertex_weight * _distance(student, teacher, form) if vertex_weight else total


@full_precision
def irg_transform_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], form: Form = 'caffe', constant_max: bool = False
) -> Tensor:
    r"""Difference of how far each sample moves from one layer to another, in the two networks.

    Of the same paper as :func:`irg_loss`. Layers come in pairs, first and last, first and last ...; the transformation
    of a pair is ``||x_i^last - x_i^first||**2`` for each sample i, over the largest of the batch. With T the vectors of
    these, ``D = T^s - T^t`` gives ``sum(D**2) / (2 N)`` or ``mean(D**2)``, summed over the pairs.

    Args:
        student: An even number of tensors, (N, D) or (N, C, H, W); those of a pair have equal D or C.
        teacher: As many, taken as constant; their D or C may be others.
        form: ``caffe`` (the authors') or ``mean``, which is twice as large.
        constant_max: Take the largest transformation as constant, so that the gradient is not that of the value.

    Returns:
        Scalar >= 0, dimensionless, summed over the pairs; 0 for an empty batch.

    Raises:
        ValueError: If these are no pairs of layers of the same samples, if the dimensions of a pair differ, or if the
            form is unknown.

    Example:
        >>> import torch  # transformations 1/4, 1 and 1, 1/4
        >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[6.0], [3.0]])
        >>> irg_transform_loss([0 * x, x], [0 * y, y]).item()  # 2 * (3/4)**2 / (2 * 2)
        0.28125
    """
    _check_form(form)
    if len(student) != len(teacher) or not student or len(student) % 2:
        shapes = [[tuple(layer.shape) for layer in layers] for layers in (student, teacher)]
        raise ValueError(
            f'{len(student)} layers of the student and {len(teacher)} of the teacher given ({shapes[0]} and '
            f'{shapes[1]}), expected as many of both, in pairs [first, last, first, last, ...]'
        )
    layers = [as_vectors(s, t.detach()) for s, t in zip(student, teacher, strict=True)]
    terms = []
    for (first_s, first_t), (last_s, last_t) in zip(layers[::2], layers[1::2], strict=True):
        moved = transformation(first_s, last_s, constant_max), transformation(first_t, last_t)
        terms.append(_distance(*moved, form))
    return torch.stack(terms).sum()


def edges(vectors: Tensor, constant_max: bool = False) -> Tensor:
    """(N, N): squared distances of all pairs of (N, D), over the largest."""
    return _over_largest(squared_distances(vectors), constant_max)


def transformation(first: Tensor, last: Tensor, constant_max: bool = False) -> Tensor:
    """(N,): squared distances between the two vectors of each sample, over the largest.

    Raises:
        ValueError: If the shapes differ.
    """
    if first.shape != last.shape:
        raise ValueError(
            f'a pair of layers {tuple(first.shape)} and {tuple(last.shape)} given (pooled), expected the same samples '
            'and channels in both: take two layers of one stage, such as its first and its last block'
        )
    return _over_largest((last - first).square().sum(1), constant_max)


def _over_largest(values: Tensor, constant_max: bool) -> Tensor:
    if not values.numel():
        return values
    largest = values.detach().amax() if constant_max else values.amax()
    return values / torch.where(largest == 0, 1, largest)


def _distance(student: Tensor, teacher: Tensor, form: Form) -> Tensor:
    difference = (student - teacher).square().sum()
    return difference / max(2 * len(student) if form == 'caffe' else student.numel(), 1)


def _check_form(form: str) -> None:
    if form not in ('caffe', 'mean'):
        raise ValueError(f"form={form!r} given, expected 'caffe' or 'mean'")


class IRGLoss(SampleRelationLoss):
    """The graphs of IRG, see :func:`irg_loss`; dimensions may differ unless vertices are compared.

    The samples of each process's batch are related with each other, unless ``gather=True``. The value of the form
    ``caffe`` grows with their number.

    The weight 0.005 belongs to the form ``caffe``, on pooled vectors. Deviations: the authors' backward pass takes the
    largest distance as constant, and counts each pair once where the value has it twice; here the gradient is that of
    the value, and ``constant_max=True`` gives twice theirs.

    Args:
        vertex_weight: Factor on the vertex term, relative to the edges; 0 leaves it out.
        form: ``caffe`` or ``mean``.
        constant_max: Take the largest distance as constant.
        gather: Relate the samples of all processes.
        loss_weight: Factor on the sum.

    Raises:
        ValueError: If the form is unknown, a weight is negative or a boolean is none.
    """

    def __init__(
        self,
        vertex_weight: float = 0.0,
        form: Form = 'caffe',
        constant_max: bool = False,
        gather: bool = False,
        loss_weight: float = 0.005,
    ) -> None:
        super().__init__(gather, loss_weight)
        _check_form(form)
        self.vertex_weight = check_number(vertex_weight, 'vertex_weight')
        self.form: Form = form
        self.constant_max = check_bool(constant_max, 'constant_max')

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`irg_loss` of two tapped tensors."""
        student, teacher = self.joined(student, teacher)
        return self.loss_weight * irg_loss(student, teacher, self.vertex_weight, self.form, self.constant_max)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return (
            f'vertex_weight={self.vertex_weight:g}, form={self.form!r}, constant_max={self.constant_max}, '
            f'{super().extra_repr()}'
        )


class IRGTransformLoss(SampleRelationLoss):
    """The transformations of IRG between layers, see :func:`irg_transform_loss`.

    ``on`` names layers in pairs, first and last, first and last ...; the authors take the first and the last block of
    each residual stage. Each sample's move is seen in relation to the largest of its process's batch, unless
    ``gather=True``.

    The weight 0.005 belongs to the form ``caffe``, for each pair. Deviations: as :class:`IRGLoss`; the edges'
    transformation, which the paper has too, is not in the authors' network and not here.

    Args:
        form: ``caffe`` or ``mean``.
        constant_max: Take the largest transformation as constant.
        gather: Relate the samples of all processes.
        loss_weight: Factor on the sum over the pairs.

    Raises:
        ValueError: If the form is unknown, the weight is negative or a boolean is none.
    """

    relates_layers = True

    def __init__(
        self,
        form: Form = 'caffe',
        constant_max: bool = False,
        gather: bool = False,
        loss_weight: float = 0.005,
    ) -> None:
        super().__init__(gather, loss_weight)
        _check_form(form)
        self.form: Form = form
        self.constant_max = check_bool(constant_max, 'constant_max')

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Weighted :func:`irg_transform_loss` of two lists of tapped tensors."""
        joined = self.joined(*student, *teacher)
        student, teacher = joined[: len(student)], joined[len(student) :]
        return self.loss_weight * irg_transform_loss(student, teacher, self.form, self.constant_max)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'form={self.form!r}, constant_max={self.constant_max}, {super().extra_repr()}'
