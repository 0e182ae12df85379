"""A route: checkpoints of one teacher's own training, which teach one after the other."""

import copy
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..facts import Progress
from ..files.checkpoint import fingerprint
from .frozen import Frozen
from .network_spec import NETWORK_KEYS, TeacherSpec, build_teacher
from .source import SOURCES
from .stages import Stages


@SOURCES.register_module()
class Route(Frozen):
    """A frozen teacher whose weights are those of another checkpoint in each stage of the run, from easy to hard.

    X. Jin, B. Peng, Y. Wu, Y. Liu, J. Liu, D. Liang, J. Yan, X. Hu, "Knowledge Distillation via Route Constrained
    Optimization", ICCV 2019, arXiv 1904.09149: anchors C_1 ... C_n that the teacher left on its way, of which the last
    is the converged one; in stage k the student, as stage k - 1 left it, learns from C_k.

    ``teacher=dict(type='Route', config='my_teacher.py', checkpoint='work_dirs/my_teacher/epoch_{}.pth', anchors=[8, 16,
    24, 30])``, and losses as for any frozen teacher. ``switch=None`` gives all anchors equally many epochs (the paper's
    equal-epoch interval): epoch t of L has the anchor ``t * n // L``. ``switch=[10, 20, 35]`` are the epochs at which
    the others begin. ``switch=dict(type='greedy', every=5, threshold=2.0)`` searches: every 5 epochs the furthest later
    anchor follows whose KL divergence from the student's prediction, on 256 training images, is below ``threshold``
    times that of the current one, or else the next. That is our reading: the paper's exact criterion and its thresholds
    were not at hand, and that the next one follows where none is near enough is ours. A search needs a loss that
    compares logits of images, and epochs; what it chose is in the checkpoints.

    One anchor is in memory at a time, folded, and beside it the network that checkpoints are read into, on the CPU. All
    are read once before training; one that is another file when it is to teach is an error. Learning rates go on at a
    switch, or begin anew with :class:`PhaseHook`; which of both the paper did, and with how many anchors, is not known
    to us. Losses that take something over from a teacher's weights before training are refused.

    Args:
        spec: The network, ``{}`` in its checkpoint's path.
        student: See :class:`Frozen`.
        anchors: What is put for ``{}``, in the order in which they teach: whole numbers or words, each once.
        switch: See above.
        by_epoch: Whether ``switch`` and equal stages count epochs, or else iterations.

    Raises:
        ValueError: As :class:`Frozen`; if the path has no ``{}``, anchors are missing or given twice, or ``switch`` is
            not understood.
    """

    keys: ClassVar[tuple[str, ...]] = (
        *NETWORK_KEYS, 'optimize', 'precision', 'stream', 'anchors', 'switch', 'by_epoch',
    )  # fmt: skip

    def __init__(
        self,
        spec: TeacherSpec,
        student: nn.Module,
        anchors: Sequence[int | str],
        switch: Any = None,
        by_epoch: bool = True,
    ) -> None:
        path = spec.checkpoint or ''
        if '{}' not in path:
            raise ValueError(
                f"{spec.name} (Route) has checkpoint='{path}', expected a path with {{}} in it, for which each of "
                "anchors is put: 'work_dirs/my_teacher/epoch_{}.pth'"
            )
        #: What they are called.
        self.anchors = _read_anchors(anchors, spec.name)
        self.stages = Stages(len(self.anchors), switch, by_epoch, spec.name)
        super().__init__(spec, student)
        self.needs = () if len(self.anchors) == 1 else (self.stages.need,)
        self._path = path
        self._plain: nn.Module = self.model  # what checkpoints are read into
        self._prints: list[str] = []
        self._number = 0
        self._told: int | None = None
        #: Whether somebody searches, see :class:`DistillHook`.
        self.is_searched = False

    @classmethod
    def from_spec(cls, spec: Any, name: str, student: nn.Module) -> 'Route':
        """A network as a frozen teacher's is given; see :class:`Source`."""
        own = {key: spec[key] for key in ('anchors', 'switch', 'by_epoch') if key in spec}
        if 'anchors' not in own or 'checkpoint' not in spec:
            raise ValueError(
                f"{name} (Route) has {sorted(spec)}, expected dict(type='Route', config='my_teacher.py', "
                "checkpoint='work_dirs/my_teacher/epoch_{}.pth', anchors=[8, 16, 24, 30])"
            )
        return cls(build_teacher({k: v for k, v in spec.items() if k not in own}, name, student), student, **own)

    @property
    def changes(self) -> bool:
        """Whether there is more than one anchor."""
        return len(self.anchors) > 1

    def load(self) -> None:
        """Read all anchors, to see that they fit; the last one stays.

        Raises:
            FileNotFoundError: If one does not exist; the message says which.
            ValueError: If one cannot be read or does not fit.
        """
        if not self._loaded:
            for number in range(len(self.anchors)):
                self._read_file(number)
                self._prints.append(fingerprint(self._plain.state_dict()))
            self.fingerprint = ' '.join(self._prints)
            self.model = copy.deepcopy(self._plain)
            self._loaded = True

    def get_ready(self, like: Tensor, student: nn.Module | None = None, progress: Progress | None = None) -> None:
        """As :meth:`Frozen.get_ready`, with the weights of the anchor that teaches now.

        Raises:
            RuntimeError: If its file has changed since training began, or nobody searches.
            ValueError: If the run is too short for all.
        """
        if progress is not None and self.changes:
            if self.stages.greedy and not self.is_searched:
                raise RuntimeError(
                    f"{self.stages.who}: nobody searches for anchors: add dict(type='DistillHook') to custom_hooks "
                    '(tools/train.py adds it)'
                )
            number = self.stages.at(progress)
            self._become(number)
            if number != self._told:
                self._told = number
                print_log(
                    f'{self.name}: anchor {self.anchors[number]} ({number + 1} of {len(self.anchors)}) teaches from '
                    f'epoch {progress.epoch}, iteration {progress.iteration}',
                    'current',
                )
        super().get_ready(like, student, progress)

    def each(self, first: int = 0) -> Iterator[str]:
        """Be each of the anchors from a number on, called as in ``teacher@8``; then what it was."""
        if not self.changes:
            yield self.name
            return
        before = self._number
        try:
            for number in range(first, len(self.anchors)):
                self._stand_in(number)
                yield f'{self.name}@{self.anchors[number]}'
        finally:
            self._stand_in(before)

    def _stand_in(self, number: int) -> None:
        """Become an anchor where the one before was."""
        like = next(chain(self.model.parameters(), self.model.buffers()), torch.zeros(0)).new_empty(0)
        self._become(number)
        super().get_ready(like)

    def _become(self, number: int) -> None:
        """Have the weights of an anchor, not yet folded, on the CPU."""
        if number == self._number:
            return
        self._read_file(number)
        if fingerprint(self._plain.state_dict()) != self._prints[number]:
            raise RuntimeError(
                f"{self.name}: anchor {self.anchors[number]} ('{self._spec.checkpoint}') is not what it was when this "
                'process began: something has written to it since. Keep the files of a route while it teaches'
            )
        self.model = copy.deepcopy(self._plain)
        self._as_read()

    def _read_file(self, number: int) -> None:
        self._spec.model, self._spec.checkpoint = self._plain, self._path.replace('{}', self.anchors[number])
        try:
            self._spec.load_weights()
        except (FileNotFoundError, ValueError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f'{self.name}: anchor {self.anchors[number]}: {error}') from error
        self._number = number


def _read_anchors(given: Any, name: str) -> list[str]:
    """Their names.

    Raises:
        ValueError: If there are none, one is there twice, or something else is given.
    """
    listed = given if isinstance(given, (list, tuple)) else []
    words = [str(one) for one in listed if isinstance(one, (int, str)) and not isinstance(one, bool) and one != '']
    if not words or len(words) != len(listed) or len(set(words)) != len(words):
        raise ValueError(
            f'{name} (Route) has anchors={given!r}, expected a list of what is put for {{}} in checkpoint, each once, '
            'as in [8, 16, 24, 30]'
        )
    return words
