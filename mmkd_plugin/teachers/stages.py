"""Which anchor of a route teaches when."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from mmengine.logging import MessageHub

from ..facts import Progress
from ..options import check_bool, check_number, check_whole

#: What the message hub calls the anchors that searches chose: by route, pairs of an epoch and a number from 0.
KEY = 'distill_route'
_GREEDY = "dict(type='greedy', every=5, threshold=2.0)"


@dataclass(frozen=True)
class Greedy:
    """The search for the next anchor, every so many epochs.

    Args:
        every: Epochs of a stage.
        threshold: How many times as far from the student as the current anchor the next one may be, > 0.
        samples: Training images on which that is measured.

    Raises:
        ValueError: If a number is out of range.
    """

    every: int
    threshold: float
    samples: int = 256

    def __post_init__(self) -> None:
        check_whole(self.every, 'switch: every', 1)
        check_number(self.threshold, 'switch: threshold', above=True)
        check_whole(self.samples, 'switch: samples', 1)

    def choose(self, current: int, gaps: list[float]) -> int:
        """The furthest anchor below the threshold, or else the next one.

        Args:
            current: The number of the one that teaches.
            gaps: From the student to this one and to each later one; >= 0.

        Example:
            >>> Greedy(every=1, threshold=2).choose(1, [0.5, 0.7, 0.9, 1.5])
            3
        """
        near = [number for number, gap in enumerate(gaps) if gap < self.threshold * gaps[0]]
        return min(current + max(1, *near, 0), current + len(gaps) - 1)


@dataclass(frozen=True)
class Stages:
    """When each of n anchors teaches.

    Args:
        anchors: How many there are.
        switch: None for stages of equal length; the n - 1 epochs at which the later ones begin, or
            ``dict(type='greedy', ...)``, see :class:`Greedy`.
        by_epoch: Count epochs, or else iterations.
        name: Of the route.

    Raises:
        ValueError: If something is not understood.

    Example:
        >>> [Stages(3).at(Progress(t, epochs=7)) for t in range(7)]
        [0, 0, 0, 1, 1, 2, 2]
    """

    anchors: int
    switch: Any = None
    by_epoch: bool = True
    name: str = 'teacher'
    greedy: Greedy | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_bool(self.by_epoch, f'{self.who}: by_epoch')
        if isinstance(self.switch, Mapping):
            object.__setattr__(self, 'greedy', self._read_greedy(dict(self.switch)))
        elif self.switch is not None:
            given = self.switch if isinstance(self.switch, (list, tuple)) else [None]
            times = [0, *(t for t in given if isinstance(t, int) and not isinstance(t, bool))]
            rising = all(a < b for a, b in pairwise(times))
            if len(times) != len(given) + 1 or not rising or len(given) != self.anchors - 1:
                raise ValueError(
                    f'{self.who}: switch={self.switch!r} given, expected None, {_GREEDY}, or a list of '
                    f'{self.anchors - 1} {self.need}s > 0 that rise: when each of the {self.anchors} anchors but the '
                    'first begins'
                )

    def _read_greedy(self, given: dict[str, Any]) -> Greedy:
        if given.pop('type', None) != 'greedy' or not {'every', 'threshold'} <= set(given) <= {*Greedy.__annotations__}:
            raise ValueError(
                f'{self.who}: switch={dict(self.switch)!r} given, expected {_GREEDY}, and samples=... for '
                'another number of training images than 256'
            )
        if not self.by_epoch:
            raise ValueError(f'{self.who}: a search counts epochs, and by_epoch=False is given: give switch=[...]')
        try:
            return Greedy(**given)
        except ValueError as error:
            raise ValueError(f'{self.who}: {error}') from error

    @property
    def who(self) -> str:
        """What errors call it."""
        return f'{self.name} (Route)'

    @property
    def need(self) -> str:
        """What it counts, as it is called in ``needs``."""
        return 'epoch' if self.by_epoch else 'iteration'

    def begins(self, length: int | None) -> list[int]:
        """When another anchor may begin to teach.

        Args:
            length: Of the run, in what it counts; None where nobody says it.

        Raises:
            ValueError: If the run is too short.
            RuntimeError: If its length is needed and not known.
        """
        if self.anchors == 1:
            return []
        if self.greedy:
            begins = list(range(self.greedy.every, length or 0, self.greedy.every))
        elif self.switch is not None:
            begins = list(self.switch)
        elif length is not None:
            begins = [-(-number * length // self.anchors) for number in range(1, self.anchors)]
        else:
            raise RuntimeError(
                f"{self.who}: stages of equal length need the run's, and nobody says it: give switch=[...], or call "
                "mmengine.logging.MessageHub.get_current_instance().update_info('max_epochs', n) (or 'max_iters')"
            )
        if length is not None and (not begins or begins[-1] >= length):
            given = f'{self.anchors} anchors' if self.switch is None else f'switch={self.switch!r}'
            text = f'{self.who}: {given} given, and this run has {length} {self.need}{"s" * (length != 1)}'
            if self.by_epoch and length == 1:
                text += '. If it is iteration-based, count iterations, with by_epoch=False'
            raise ValueError(text)
        return begins

    def at(self, progress: Progress) -> int:
        """The number of the anchor that teaches, from 0.

        Raises:
            ValueError: As :meth:`begins`.
            RuntimeError: As :meth:`begins`.
        """
        length, now = progress.epochs, progress.epoch
        if not self.by_epoch:
            length, now = progress.iterations, progress.iteration
        begins = self.begins(length)
        if self.greedy is None:
            return bisect_right(begins, now)
        return max((number for epoch, number in self.chosen() if epoch <= now), default=0)

    def chosen(self) -> list[list[int]]:
        """What its searches chose so far, from the message hub, which checkpoints keep."""
        hub = MessageHub.get_current_instance().runtime_info
        return list((hub.get(KEY) or {}).get(self.name, []))

    def keep(self, epoch: int, number: int) -> None:
        """Put into the message hub what was chosen at an epoch."""
        hub = MessageHub.get_current_instance()
        known = [pair for pair in self.chosen() if pair[0] < epoch]
        hub.update_info(KEY, {**(hub.runtime_info.get(KEY) or {}), self.name: [*known, [epoch, number]]})
