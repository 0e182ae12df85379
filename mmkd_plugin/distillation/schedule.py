"""When a loss counts, and how much of it."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmengine.logging import print_log

from ..facts import Progress
from ..options import check_bool, check_number, check_whole

#: From 1 at x = 0 down to `final` at x = 1.
CURVES: dict[str, Callable[[float, float], float]] = {
    'linear': lambda x, final: 1 - (1 - final) * x,
    'cosine': lambda x, final: final + (1 - final) * (1 + math.cos(math.pi * x)) / 2,
    'exponential': lambda x, final: final**x,
}


@dataclass(frozen=True)
class Schedule:
    """Active interval of a loss, its warm-up and its decay.

    Active for ``begin <= t < end``, where t counts epochs (or iterations) from 0. Inside it the
    factor rises as ``min((t - begin + 1) / warmup, 1)``: with ``by_epoch`` this is the published
    ``min(epoch / warmup, 1)`` with epochs counted from 1. After the warm-up it falls from 1 to
    ``final`` over ``decay`` epochs, and stays there.

    Curves, for the part x of the way: linear ``1 - (1 - final) x``; cosine
    ``final + (1 - final) (1 + cos(pi x)) / 2``; exponential ``final ** x``. ``gamma ** epoch`` over 50
    epochs is ``decay=50, final=gamma**50, curve='exponential'``. A rise follows the same curve
    backwards, from 0 (exponential: from ``final``).

    Args:
        begin: First active epoch (or iteration), from 0.
        end: First inactive one after that; None for no end.
        warmup: Length of the rise; 0 for none.
        by_epoch: Count epochs (default) or iterations.
        decay: Length of the fall; 0 for none.
        final: Factor after the fall, in [0, 1]; 0 is off.
        curve: ``linear``, ``cosine`` or ``exponential``.

    Raises:
        ValueError: If the interval is empty, a number is out of range, the curve is unknown, an exponential one has
            ``final=0``, or something is of another type.

    Example:
        >>> [Schedule(begin=2, end=6, warmup=2).factor(Progress(t)) for t in range(7)]
        [0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 0.0]
        >>> [Schedule(decay=2, final=0.25, curve='exponential').factor(Progress(t)) for t in range(4)]
        [1.0, 0.5, 0.25, 0.25]
    """

    begin: int = 0
    end: int | None = None
    warmup: int = 0
    by_epoch: bool = True
    decay: int = 0
    final: float = 0.0
    curve: str = 'linear'

    def __post_init__(self) -> None:
        check_whole(self.begin, 'schedule: begin')
        check_whole(self.warmup, 'schedule: warmup')
        check_whole(self.decay, 'schedule: decay')
        check_number(self.final, 'schedule: final', 0, 1)
        check_bool(self.by_epoch, 'schedule: by_epoch')
        if self.end is not None and check_whole(self.end, 'schedule: end') <= self.begin:
            raise ValueError(f'schedule: begin={self.begin}, end={self.end} given, expected end > begin (or end=None)')
        if self.curve not in CURVES:
            raise ValueError(f'schedule: curve={self.curve!r} given, expected one of {", ".join(map(repr, CURVES))}')
        if self.curve == 'exponential' and not self.final and (self.decay or self.warmup):
            raise ValueError("schedule: curve='exponential' never reaches 0: give final=..., such as final=0.7**50")
        if self.final and not self.decay and not (self.curve == 'exponential' and self.warmup):
            raise ValueError(f'schedule: final={self.final:g} given without decay, over which it would be reached')

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 at all times."""
        return self.begin == 0 and self.end is None and self.warmup <= 1 and not self.decay

    @property
    def phased(self) -> bool:
        """Whether it is off at some time."""
        return bool(self.begin or self.end or (self.decay and not self.final))

    @property
    def unit(self) -> str:
        """What it counts."""
        return 'epoch' if self.by_epoch else 'iteration'

    @property
    def turns(self) -> set[int]:
        """Times at which it may go on or off."""
        faded = {self.begin + self.warmup + self.decay} if self.decay and not self.final else set()
        return {self.begin, self.end or 0} | faded

    def factor(self, progress: Progress) -> float:
        """The factor on the loss, in [0, 1]; 0 means inactive."""
        t = progress.epoch if self.by_epoch else progress.iteration
        if t < self.begin or (self.end is not None and t >= self.end):
            return 0.0
        done = t - self.begin + 1
        if done < self.warmup:
            if self.curve == 'linear':
                return done / self.warmup
            return CURVES[self.curve](1 - done / self.warmup, self.final if self.curve == 'exponential' else 0.0)
        if not self.decay:
            return 1.0
        return CURVES[self.curve](min(max(t - self.begin - self.warmup, 0) / self.decay, 1.0), self.final)


def check_schedules(
    schedules: Sequence[tuple[str, Schedule]], progress: Progress, iteration_based: bool = False
) -> None:
    """Whether a run is long enough for its schedules.

    Args:
        schedules: With the names of the losses.
        progress: Of the run, with its lengths where they are known.
        iteration_based: Whether the run is known to be that.

    Raises:
        ValueError: If a loss would never begin, if a schedule counts epochs in an iteration-based run, or if at some
            time every loss is off.
    """
    epochs, iterations = progress.epochs, progress.iterations
    for name, schedule in schedules:
        length = epochs if schedule.by_epoch else iterations
        if schedule.constant or length is None:
            continue
        if schedule.by_epoch and iteration_based:
            raise ValueError(
                f'the {name} loss has a schedule that counts epochs, and this run is iteration-based, one epoch to '
                'mmengine: count iterations, with by_epoch=False in the schedule'
            )
        if schedule.begin >= length:
            raise ValueError(
                f'the {name} loss begins at {schedule.unit} {schedule.begin} (from 0), and this run has {length}'
            )
        if schedule.begin + schedule.warmup + schedule.decay > length:
            what = 'warms up' if not schedule.decay else 'warms up and decays' if schedule.warmup else 'decays'
            over = f'{schedule.warmup + schedule.decay} {schedule.unit}s'
            text = f'the {name} loss {what} over {over}, and this run has {length}'
            if schedule.by_epoch and epochs == 1:
                text += '. If it is iteration-based, count iterations, with by_epoch=False in the schedule'
            print_log(text, 'current', logging.WARNING)
    for by_epoch, length in ((True, epochs), (False, iterations)):
        counting = [schedule for _, schedule in schedules if schedule.constant or schedule.by_epoch == by_epoch]
        if len(counting) < len(schedules) or length is None:
            continue
        times = sorted({0, *(t for s in counting for t in s.turns if t < length)})
        gap = next((t for t in times if not any(s.factor(Progress(t, t)) for s in counting)), None)
        if gap is not None:
            unit = 'epoch' if by_epoch else 'iteration'
            raise ValueError(f'from {unit} {gap} on every loss is off by its schedule, so nothing would train')
