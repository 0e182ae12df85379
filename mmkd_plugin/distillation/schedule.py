"""When a loss counts, and how much of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.logging import print_log

from ..options import check_bool, check_whole


@dataclass(frozen=True)
class Schedule:
    """Active interval and linear warm-up of a loss.

    Active for ``begin <= t < end``, where t counts epochs (or iterations) from 0. Inside it the
    factor rises as ``min((t - begin + 1) / warmup, 1)``: with ``by_epoch`` this is the published
    ``min(epoch / warmup, 1)`` with epochs counted from 1.

    Args:
        begin: First active epoch (or iteration), from 0.
        end: First inactive one after that; None for no end.
        warmup: Length of the linear rise; 0 for none.
        by_epoch: Count epochs (default) or iterations.

    Raises:
        ValueError: If the interval is empty, a number is negative, or something is of another type.

    Example:
        >>> [Schedule(begin=2, end=6, warmup=2).factor(t, 0) for t in range(7)]
        [0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 0.0]
    """

    begin: int = 0
    end: int | None = None
    warmup: int = 0
    by_epoch: bool = True

    def __post_init__(self) -> None:
        check_whole(self.begin, 'schedule: begin')
        check_whole(self.warmup, 'schedule: warmup')
        check_bool(self.by_epoch, 'schedule: by_epoch')
        if self.end is not None and check_whole(self.end, 'schedule: end') <= self.begin:
            raise ValueError(f'schedule: begin={self.begin}, end={self.end} given, expected end > begin (or end=None)')

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 at all times."""
        return self.begin == 0 and self.end is None and self.warmup <= 1

    @property
    def unit(self) -> str:
        """What it counts."""
        return 'epoch' if self.by_epoch else 'iteration'

    def factor(self, epoch: int, iteration: int) -> float:
        """The factor on the loss, in [0, 1]; 0 means inactive."""
        t = epoch if self.by_epoch else iteration
        if t < self.begin or (self.end is not None and t >= self.end):
            return 0.0
        return min((t - self.begin + 1) / self.warmup, 1.0) if self.warmup else 1.0


def check_schedules(
    schedules: Sequence[tuple[str, Schedule]], epochs: int, iterations: int | None, iteration_based: bool = False
) -> None:
    """Whether a run is long enough for its schedules.

    Args:
        schedules: With the names of the losses.
        epochs: Of the run. To mmengine an iteration-based run is one epoch.
        iterations: Of the run, if known.
        iteration_based: Whether the run is known to be that.

    Raises:
        ValueError: If a loss would never begin, if a schedule counts epochs in an iteration-based run, or if at some
            time every loss is off.
    """
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
        if schedule.begin + schedule.warmup > length:
            text = f'the {name} loss warms up over {schedule.warmup} {schedule.unit}s, and this run has {length}'
            if schedule.by_epoch and epochs == 1:
                text += '. If it is iteration-based, count iterations, with by_epoch=False in the schedule'
            print_log(text, 'current', logging.WARNING)
    for by_epoch, length in ((True, epochs), (False, iterations)):
        counting = [schedule for _, schedule in schedules if schedule.constant or schedule.by_epoch == by_epoch]
        if len(counting) < len(schedules) or length is None:
            continue
        times = sorted({0, *(t for s in counting for t in (s.begin, s.end or 0) if t < length)})
        gap = next((t for t in times if not any(s.factor(t, t) for s in counting)), None)
        if gap is not None:
            unit = 'epoch' if by_epoch else 'iteration'
            raise ValueError(f'from {unit} {gap} on every loss is off by its schedule, so nothing would train')
