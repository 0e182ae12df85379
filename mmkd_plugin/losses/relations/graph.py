"""The representation graph of several teachers (Zhang and Peng), as this project reads it."""

import zlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ...options import check_whole
from ..base import full_precision
from ..gather import SampleRelationLoss
from ..shapes import as_vectors, unit_vectors
from ..teacher_weights import TeacherWeights, Weights, check_weights

_ROUNDING = 1e-6  # of the largest entry; smaller ones are what the Fourier transform left of 0
Kernel = Literal['linear', 'polynomial']


@full_precision
def representation_graph_loss(
    student: Tensor, pairs: Sequence[Tensor], weights: Tensor | None = None, kernel: Kernel = 'linear'
) -> Tensor:
    r"""Weighted sum of the squared maximum mean discrepancies from the student's vectors to the teachers' pairs.

    C. Zhang, Y. Peng, "Better and Faster: Knowledge Transfer from Multiple Self-supervised Learning Tasks via Graph
    Distillation for Video Classification", IJCAI 2018, arXiv 1804.10069. What is established of the representation
    graph is that its vertices are pairs of teachers whose features are brought together by compact bilinear pooling,
    and that the student's hint layer is matched to them by the maximum mean discrepancy (MMD). The rest is this
    project's reading, since the exact loss, its edges and weight are in no source that we could read:

    ``sum_mn w_mn * MMD^2({r_mn(b)}, {r_s(b)})``,  ``r_s = W f_s / |W f_s|``

    with the sets over the samples b of the batch. With k(x, y) = ``x.y`` (linear) that is the squared distance of the
    two mean vectors, and with ``(x.y)**2`` (polynomial)
    ``mean k(r_mn, r_mn) + mean k(r_s, r_s) - 2 mean k(r_mn, r_s)``.

    Args:
        student: (N, d), what W made of the student's vectors; here divided by its length.
        pairs: (N, d) each, from :func:`compact_bilinear`, taken as constant.
        weights: (pairs,), which sum to 1; None for equal ones.
        kernel: One of the two.

    Returns:
        Scalar >= 0 up to rounding, dimensionless; 0 for an empty batch.

    Raises:
        ValueError: If there is no pair, shapes differ, or the kernel is unknown.

    Example:
        >>> import torch  # means (1/2, 1/2) and (1, 0)
        >>> x, y = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> [representation_graph_loss(x, [y], kernel=kernel).item() for kernel in ('linear', 'polynomial')]
        [0.5, 0.5]
    """
    _check_kernel(kernel)
    if not pairs or any(pair.shape != student.shape for pair in pairs) or student.ndim != 2:
        raise ValueError(
            f'student {tuple(student.shape)} and pairs {[tuple(pair.shape) for pair in pairs]} given, expected (N, d) '
            'and one or more pairs of the same shape'
        )
    y = unit_vectors(student)
    x = torch.stack([pair.detach() for pair in pairs])
    count = max(len(student), 1)
    if kernel == 'linear':
        by_pair = (x.sum(1) / count - y.sum(0) / count).square().sum(1)
    else:
        cross, own, constant = ((a @ b.mT).square().sum((-2, -1)) / count**2 for a, b in ((x, y), (y, y), (x, x)))
        by_pair = constant + own - 2 * cross
    return by_pair.mean() if weights is None else weights.to(by_pair) @ by_pair


@full_precision
def compact_bilinear(first: Tensor, second: Tensor) -> Tensor:
    """The outer products of two sketched vectors, themselves as a sketch; signed roots over their length.

    Y. Gao, O. Beijbom, N. Zhang, T. Darrell, "Compact Bilinear Pooling", CVPR 2016, arXiv 1511.06062: the circular
    convolution of two count sketches (:class:`CountSketch`) is a count sketch of the outer product, so that inner
    products of two results are, in expectation, the products of the inner products of what went in. Then
    ``sign(r) * sqrt(|r|)``, over its length. Entries below 1e-6 of the largest are the transform's rounding, and 0.

    Args:
        first: (N, d), one sketch.
        second: (N, d), one of other hashes.

    Returns:
        (N, d) of length 1, or 0 where one of the two is.
    """
    joint = _convolved(first, second)
    joint = joint / joint.abs().amax(1, keepdim=True).clamp_min(torch.finfo(joint.dtype).tiny)
    size = joint.abs()
    return unit_vectors(torch.where(size > _ROUNDING, joint.sign() * size.sqrt(), 0))


def _convolved(first: Tensor, second: Tensor) -> Tensor:
    """Circular convolution of rows."""
    if not first.numel():  # of which there is no transform
        return first * second
    return torch.fft.irfft(torch.fft.rfft(first) * torch.fft.rfft(second), n=first.size(1))


class CountSketch(nn.Module):
    """A random projection of vectors that adds each entry, with a random sign, to one random entry of the result.

    Args:
        size: Of the vectors.
        dimension: Of the result.
        seed: Of the fixed hashes and signs; the random state of torch stays as it is.

    Example:
        >>> sketch = CountSketch(3, 2)
        >>> sketch.index.shape, sketch(torch.zeros(5, 3)).shape
        (torch.Size([3]), torch.Size([5, 2]))
    """

    index: Tensor
    sign: Tensor

    def __init__(self, size: int, dimension: int, seed: int = 0) -> None:
        super().__init__()
        self.dimension = dimension
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer('index', torch.randint(dimension, (size,), generator=generator))
        self.register_buffer('sign', 2.0 * torch.randint(2, (size,), generator=generator) - 1)

    @full_precision
    def forward(self, vectors: Tensor) -> Tensor:
        """(N, size) to (N, dimension)."""
        return vectors.new_zeros(len(vectors), self.dimension).index_add(1, self.index, vectors * self.sign.to(vectors))


class RepresentationGraphLoss(SampleRelationLoss):
    """The representation graph, see :func:`representation_graph_loss`: two or more teachers, by ``teachers=dict(...)``.

    The learnable part is W, from the student's dimension to that of the sketches. Hashes and signs of a teacher follow
    from its name, and are kept in checkpoints. Dimension and weight are ours; none is published that we could read.

    The sets are those of each process's own batch, unless ``gather=True``.

    Args:
        dimension: Of the sketches.
        kernel: ``linear`` or ``polynomial``.
        weights: Of the pairs: ``uniform``; a number >= 0 for each teacher by its name, a pair's being the product; or
            ``learned``, the softmax of learnable scores, which go to the pair that the student is nearest to.
        gather: Join the samples of all processes.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If an argument is unknown or out of range, or the weight is negative.
    """

    sides: ClassVar[tuple[str, ...]] = ('student', 'teachers')

    def __init__(
        self,
        dimension: int = 512,
        kernel: Kernel = 'linear',
        weights: Weights = 'uniform',
        gather: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(gather, loss_weight)
        self.dimension = check_whole(dimension, 'dimension', 1)
        _check_kernel(kernel)
        self.kernel: Kernel = kernel
        self.weights = check_weights(weights)

    def build_connectors(self, student: Sequence[int], teachers: Mapping[str, Sequence[int]]) -> None:
        """Make W, and the hashes of each teacher.

        Raises:
            ValueError: If there are fewer than two teachers, these are no vectors or maps, or weights are given for
                others.
        """
        if len(teachers) < 2 or {len(shape) for shape in (student, *teachers.values())} - {2, 4}:
            raise ValueError(
                f'student {tuple(student)} and teachers { {name: tuple(shape) for name, shape in teachers.items()} } '
                'given, expected two teachers or more, and vectors (N, D) or feature maps (N, C, H, W)'
            )
        self.names = list(teachers)
        self.project = nn.Linear(student[1], self.dimension, bias=False)
        # so that it does not matter in which order teachers are named
        seeds = [zlib.crc32(name.encode()) for name in self.names]
        self.sketches = nn.ModuleList(
            CountSketch(teachers[name][1], self.dimension, seed) for name, seed in zip(self.names, seeds, strict=True)
        )
        self.shares = TeacherWeights(self.weights, self.names, pairs=True)

    def forward(self, student: Tensor, teachers: Mapping[str, Tensor]) -> Tensor:
        """Weighted :func:`representation_graph_loss` of vectors or maps and a dictionary of such."""
        student, *given = self.joined(student, *(teachers[name] for name in self.names))
        vectors = [as_vectors(student, teacher.detach())[1] for teacher in given]
        sketches = [sketch(vector) for sketch, vector in zip(self.sketches, vectors, strict=True)]
        pairs = [compact_bilinear(first, second) for first, second in combinations(sketches, 2)]
        projected = self.project(as_vectors(student, student)[0])
        return self.loss_weight * representation_graph_loss(projected, pairs, self.shares(), self.kernel)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'dimension={self.dimension}, kernel={self.kernel!r}, weights={self.weights!r}, {super().extra_repr()}'


def _check_kernel(kernel: str) -> None:
    if not isinstance(kernel, str) or kernel not in ('linear', 'polynomial'):
        raise ValueError(f"kernel={kernel!r} given, expected 'linear' or 'polynomial'")
