"""CRD: contrastive representation distillation (Tian et al.)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ...options import check_number, check_whole
from ..base import DistillLoss, check_temperature, full_precision
from ..contrast import CHUNK, Form, contrast, exponentials, is_dense, log_normalizers
from ..gather import gather_rows
from ..memory import MIB, Classes, check_room, draw_others, draw_same, fill_at_random, take_in, update_rows
from ..shapes import as_vectors

_EPS = 1e-7  # the authors' code adds it to K / n
_CLASSES = ('classes', 'order', 'starts', 'sizes')


@full_precision
def crd_loss(
    student: Tensor,
    teacher: Tensor,
    student_bank: Tensor,
    teacher_bank: Tensor,
    indices: Tensor,
    normalizers: Tensor | None = None,
    temperature: float = 0.07,
    eps: float = _EPS,
) -> Tensor:
    r"""Tell, in both networks, a sample's embedding in the other network from those of K other samples.

    Y. Tian, D. Krishnan, P. Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699, and the
    authors' code: the noise contrastive estimate with banks. For sample i with the positive k = 0 and negatives
    k = 1 .. K of the n samples in a bank, M being the other network's bank and g(i) the embedding,

    ``v_k = exp(g(i) . M_k / temperature) / Z,  h(v) = v / (v + K/n + eps)``

    ``L = -mean_i [log h(v_0) + sum_k log(K/n / (v_k + K/n + eps))]``, and the sum of both networks' L.

    Computed from log v, so that nothing overflows. The scores are one product with the whole bank, of which columns are
    taken, where n is at most 32 (K + 1); beyond, the rows are fetched, for some samples at a time.

    Args:
        student: (N, d) embeddings of length 1.
        teacher: The same of the teacher, whose embedding learns as well.
        student_bank: (n, d), taken as constant; the teacher's embeddings are compared with it.
        teacher_bank: (n, d), for the student's embeddings.
        indices: (N, 1 + K) int64, rows of the banks: the positive, then the negatives.
        normalizers: (2,) ``log Z`` of the student's scores and of the teacher's; None for n times the mean exponential
            of these scores, taken as constant.
        temperature: Dimensionless, > 0.
        eps: As in the authors' code, where it raises the value by about n * eps and hardly changes the gradient; 0 for
            the paper's formula.

    Returns:
        Scalar >= 0 in nats, mean over the samples; 0 for an empty batch.

    Raises:
        ValueError: If shapes do not fit, or the temperature is not a finite number > 0.

    Example:
        >>> import torch
        >>> g, bank = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 1.0]])
        >>> round(crd_loss(g, g, bank, bank, torch.tensor([[0, 1, 2]]), eps=0).item(), 4)  # 2 (ln 3 + 2 ln 1.5)
        3.8191
    """
    _check_shapes(student, teacher, student_bank, teacher_bank, indices)
    form = Form(check_temperature(temperature), indices.size(1) - 1, len(student_bank), eps)
    return contrast((student, teacher), (student_bank, teacher_bank), indices, normalizers, form)


@full_precision
def crd_queue_loss(
    student: Tensor,
    teacher: Tensor,
    student_queue: Tensor,
    teacher_queue: Tensor,
    others: Tensor,
    normalizers: Tensor | None = None,
    num_negatives: int = 16384,
    temperature: float = 0.07,
) -> Tensor:
    """:func:`crd_loss` with queues of recent embeddings instead of banks; ours, no published method.

    A sample's positive is its own embedding in the other network, taken as constant. Its negatives are all rows of the
    queue that ``others`` marks, each counted K / (their number) times: what K of them, drawn with replacement, give on
    average. n is the number of rows; it cancels, but for the code's eps.

    Args:
        student: (N, d) embeddings of length 1.
        teacher: The same of the teacher.
        student_queue: (n, d), taken as constant.
        teacher_queue: (n, d).
        others: (N, n) bool, which rows of the queues are a sample's negatives.
        normalizers: As of :func:`crd_loss`.
        num_negatives: K.
        temperature: As of :func:`crd_loss`.

    Returns:
        Scalar >= 0 in nats, mean over the samples; 0 for an empty batch.

    Raises:
        ValueError: As of :func:`crd_loss`.
    """
    _check_shapes(student, teacher, student_queue, teacher_queue, others)
    form = Form(check_temperature(temperature), num_negatives, len(student_queue), _EPS)
    return contrast((student, teacher), (student_queue, teacher_queue), others, normalizers, form)


def _check_shapes(student: Tensor, teacher: Tensor, student_bank: Tensor, teacher_bank: Tensor, drawn: Tensor) -> None:
    fit = student.ndim == student_bank.ndim == drawn.ndim == 2 and student.shape == teacher.shape
    same = student_bank.shape == teacher_bank.shape and student_bank.shape[1:] == student.shape[1:]
    wide = drawn.size(-1) == len(student_bank) if drawn.dtype == torch.bool else drawn.size(-1) > 1
    if not (fit and same and wide and len(drawn) == len(student)):
        given = [tuple(x.shape) for x in (student, teacher, student_bank, teacher_bank, drawn)]
        raise ValueError(
            f'embeddings, banks and what is drawn of them {given} given, expected (N, d) twice, (n, d) twice and '
            '(N, 1 + K) indices with K >= 1, or an (N, n) mask of a queue'
        )


@full_precision
def _embedded(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.normalize(F.linear(x, weight, bias))


class CRDLoss(DistillLoss):
    r"""CRD, see :func:`crd_loss`: both networks are embedded by learnable linear layers, and compared with banks.

    The banks hold an embedding of every training sample from each network, and begin at random. After its scores are
    computed, a sample's rows move, ``normalise(momentum * row + (1 - momentum) * embedding)``; where several processes
    train, by the rows of all of them, so that all have the same banks. Of a sample that a batch has twice, the last row
    counts. log Z is set by the first batch (of all processes together) and stays. In evaluation mode nothing changes,
    and the same negatives are drawn each time.

    How many samples there are, and of which classes, the loss learns before training: it needs data with ``gt_label``,
    :class:`~mmkd_plugin.hooks.DistillHook`, and taps with a row for each image. Banks are in the checkpoints; resuming
    with other data is an error.

    Deviations from the authors' code. Negatives are drawn on the device and not by the data set: without replacement as
    there, and uniformly for each sample, but in a step all from one shuffle of the data (``losses/memory.py``). Feature
    maps are averaged over their positions. ``queue`` is ours.

    Args:
        num_negatives: K; at most as many as there are samples of other classes than the largest.
        temperature: Of the scores, dimensionless.
        momentum: Of the banks' rows, in [0, 1].
        embedding_dim: d, the length of the embeddings.
        positive: ``exact``, the sample itself, or ``relax``, a random sample of its class.
        queue: For data whose banks do not fit: so many embeddings are kept, those of the samples met last, and each
            sample is compared with its own embedding and with all that are kept of other classes, see
            :func:`crd_queue_loss`.
        loss_weight: Factor on the value; 0.8 is the authors'.

    Raises:
        ValueError: If an argument is out of range, or ``queue`` is given with ``relax``.
    """

    needs: ClassVar[tuple[str, ...]] = ('sample_idx',)
    takes_rois: ClassVar[bool] = False

    student_bank: Tensor
    teacher_bank: Tensor
    normalizers: Tensor
    seen: Tensor
    digest: Tensor
    queue_classes: Tensor
    classes: Tensor
    order: Tensor
    starts: Tensor
    sizes: Tensor

    def __init__(
        self,
        num_negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        embedding_dim: int = 128,
        positive: str = 'exact',
        queue: int | None = None,
        loss_weight: float = 0.8,
    ) -> None:
        super().__init__(loss_weight)
        self.num_negatives = check_whole(num_negatives, 'num_negatives', low=1)
        self.temperature = check_temperature(temperature)
        self.momentum = check_number(momentum, 'momentum', high=1.0)
        self.embedding_dim = check_whole(embedding_dim, 'embedding_dim', low=1)
        self.queue = None if queue is None else check_whole(queue, 'queue', low=1)
        if positive not in ('exact', 'relax'):
            raise ValueError(f"positive={positive!r} given, expected 'exact' or 'relax'")
        if positive == 'relax' and queue is not None:
            raise ValueError(
                f"positive='relax' and queue={queue} given: with a queue the positive is the sample itself"
            )
        self.positive = positive
        self._largest = 0
        self._begun: Tensor | None = None  # `seen`, once it is known to be above 0

    def build_connectors(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        """Make the linear layers, and banks without rows.

        Raises:
            ValueError: If these are neither vectors nor feature maps.
        """
        if {len(student), len(teacher)} - {2, 4}:
            raise ValueError(
                f'student {tuple(student)} and teacher {tuple(teacher)} given, expected vectors (N, D) or feature '
                'maps (N, C, H, W), which are averaged over their positions'
            )
        self.embed_student = nn.Linear(student[1], self.embedding_dim)
        self.embed_teacher = nn.Linear(teacher[1], self.embedding_dim)
        for name in ('student_bank', 'teacher_bank'):
            self.register_buffer(name, torch.zeros(0, self.embedding_dim))
        self.register_buffer('normalizers', torch.zeros(2))  # log Z
        self.register_buffer('seen', torch.zeros((), dtype=torch.int64))  # rows that were remembered
        self.register_buffer('digest', torch.zeros((), dtype=torch.int64))  # of the data's labels; 0 before it is told
        if self.queue is not None:
            self.register_buffer('queue_classes', torch.zeros(0, dtype=torch.int64))
        for name in _CLASSES:
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64), persistent=False)

    def reserve(self, data: Any) -> None:
        """Learn the classes of the training samples, and make room for the banks.

        Raises:
            ValueError: If the data have no labels, or too few samples of other classes to draw from; if there is too
                little memory.
        """
        known = Classes(data.labels())
        samples, others = len(known.of), len(known.of) - known.largest
        if self.queue is None and self.num_negatives > others:
            enough = f'give num_negatives={others} or less' if others else 'train on at least two classes'
            raise ValueError(
                f'num_negatives={self.num_negatives} given, and of the {samples} training samples {others} are not of '
                f'the largest class; a sample draws its negatives from other classes, without replacement: {enough}'
            )
        for name, values in zip(_CLASSES, (known.of, known.order, known.starts, known.sizes), strict=True):
            getattr(self, name).resize_(len(values)).copy_(values)
        self._largest = known.largest
        self.digest.fill_(known.digest)
        rows = self.queue or samples
        if len(self.student_bank) != rows:
            check_room(self.student_bank, rows, type(self).__name__)
            for bank in (self.student_bank, self.teacher_bank):
                bank.resize_(rows, self.embedding_dim).zero_()
        if self.queue is not None:
            self.queue_classes.resize_(rows).fill_(-1)

    def prepare(self, facts: Any) -> str:
        """Fill the banks at random.

        Returns:
            What memory they take.

        Raises:
            ValueError: As :meth:`reserve`.
        """
        self.reserve(facts.data)
        fill_at_random(self.student_bank, self.teacher_bank)
        return self._memory()

    def _memory(self) -> str:
        rows, width = self.student_bank.shape
        size, negatives = self.student_bank.element_size(), self.queue or self.num_negatives
        scores = rows if self.queue or is_dense(rows, negatives + 1) else negatives * width
        drawn = 24 * (negatives + self._largest)  # of int64, three times
        step = drawn + size * (min(scores, CHUNK) + 4 * negatives)
        return (
            f'{rows} embeddings of each network are kept, {2 * rows * width * size / MIB:,.1f} MiB here and in each '
            f'checkpoint; a step takes {step / MIB:,.2f} MiB or less for each image of its batch'
        )

    def forward(self, student: Tensor, teacher: Tensor, sample_idx: Tensor) -> Tensor:
        """Weighted :func:`crd_loss` of two tapped values; in training mode the banks change afterwards.

        Raises:
            ValueError: If there is no index of a training sample for each row.
            RuntimeError: In training mode, if nobody told of the training data.
        """
        student, teacher = as_vectors(student, teacher.detach())
        ours = _embedded(student, self.embed_student.weight, self.embed_student.bias)
        theirs = _embedded(teacher, self.embed_teacher.weight, self.embed_teacher.bias)
        if not len(self.classes):
            if self.training:
                raise RuntimeError('CRDLoss was told of no training data: call prepare(facts) before training')
            return (ours.sum() + theirs.sum()) * 0.0  # a dry run
        self._check_index(sample_idx, len(student))
        embeddings, banks = (ours, theirs), (self.student_bank, self.teacher_bank)
        drawn = self.draw(sample_idx) if self.queue is None else self._others(sample_idx)
        form = Form(self.temperature, self.num_negatives, len(self.student_bank), _EPS)
        value = contrast(embeddings, banks, drawn, self._log_z(embeddings, banks, drawn, form), form)
        if self.training:
            self._remember(sample_idx, ours.detach(), theirs.detach())
        return self.loss_weight * value

    def draw(self, sample_idx: Tensor) -> Tensor:
        """The rows of the banks that samples are compared with.

        Args:
            sample_idx: (N,) int64.

        Returns:
            (N, 1 + K) int64: the positive, then the negatives.
        """
        # in evaluation the same each time, and nothing is taken from what training draws
        generator = None if self.training else torch.Generator(sample_idx.device).manual_seed(0)
        known = self.classes, self.order, self.starts, self.sizes
        others = draw_others(sample_idx, *known, self._largest, self.num_negatives, generator)
        own = sample_idx if self.positive == 'exact' else draw_same(sample_idx, *known, generator)
        return torch.cat([own[:, None], others], 1)

    def _others(self, sample_idx: Tensor) -> Tensor:
        return self.queue_classes != self.classes[sample_idx][:, None]

    def _check_index(self, index: Tensor, rows: int) -> None:
        if index.shape != (rows,):
            raise ValueError(f'sample_idx {tuple(index.shape)} given, expected an index for each of {rows} rows')
        # on a GPU looking would wait for it; where batches tell their indices, these are looked at before
        if index.device.type == 'cpu' and rows and not 0 <= int(index.min()) <= int(index.max()) < len(self.classes):
            raise ValueError(
                f'sample_idx={index.tolist()} given, expected indices of the {len(self.classes)} training samples'
            )

    def _log_z(
        self, embeddings: tuple[Tensor, Tensor], banks: tuple[Tensor, Tensor], drawn: Tensor, form: Form
    ) -> Tensor:
        """Those that were set, or of this batch; which training keeps, if it has rows."""
        if self._begun is self.seen or self.seen > 0:  # waits for the device in the first steps only
            self._begun = self.seen
            return self.normalizers
        sums = exponentials(embeddings, banks, drawn, form)
        if self.training and dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        found = log_normalizers(sums, form).to(self.normalizers.dtype)
        if self.training:
            self.normalizers.copy_(torch.where(sums[2] > 0, found, self.normalizers))
        return found

    @torch.no_grad()
    def _remember(self, sample_idx: Tensor, ours: Tensor, theirs: Tensor) -> None:
        """Take the embeddings of all processes into the banks."""
        index, ours, theirs = gather_rows(sample_idx.long(), ours, theirs)
        for bank, embedding in ((self.student_bank, ours), (self.teacher_bank, theirs)):
            if self.queue is None:
                update_rows(bank, index, embedding, self.momentum)
            else:
                take_in(bank, self.seen, embedding)
        if self.queue is not None:
            take_in(self.queue_classes, self.seen, self.classes[index])
        self.seen += len(index)

    def check_resumed(self, state: Mapping[str, Tensor]) -> None:
        """See that a checkpoint's banks are of the same data.

        Raises:
            ValueError: If they are not.
        """
        if told := self._difference(state):
            raise ValueError(f'{told}. Resume with the data of then, or start anew from its weights: load_from=...')

    def _difference(self, state: Mapping[str, Tensor]) -> str:
        """What a checkpoint's banks have of other data; nothing where either knows of none."""
        theirs = state.get('digest')
        if theirs is None or not int(self.digest):
            return ''
        rows = len(state['student_bank']), len(self.student_bank)
        if rows[0] != rows[1]:
            return f'the checkpoint has the embeddings of {rows[0]} samples in each bank, and this run of {rows[1]}'
        if int(theirs) != int(self.digest):
            return 'the checkpoint has banks of training data with other labels, or in another order'
        return ''

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, missing_keys: list[str],
        unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Take banks of any size where nobody told of the data, as in a test; those of other data not at all."""
        state = {name: state_dict[prefix + name] for name in self._buffers if prefix + name in state_dict}
        if told := self._difference(state):
            error_msgs.append(f'{prefix}: {told}; its banks are left out')
            state_dict = {**state_dict, **{prefix + name: getattr(self, name) for name in state}}
        elif state:
            for name in ('student_bank', 'teacher_bank', 'queue_classes'):
                if name in state:
                    getattr(self, name).resize_(state[name].shape)
        self._begun = None
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return (
            f'num_negatives={self.num_negatives}, temperature={self.temperature:g}, momentum={self.momentum:g}, '
            f'embedding_dim={self.embedding_dim}, positive={self.positive!r}, queue={self.queue}, '
            f'{super().extra_repr()}'
        )
