"""What is on in a step: how far the run is, and what the schedules make of it."""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmengine.logging import MessageHub, print_log

from ..facts import Progress
from ..teachers import Source
from .schedule import Schedule, check_schedules
from .term import Term
from .turns import Turns


class Plan(NamedTuple):
    """What a step trains.

    Attributes:
        progress: How far the run is.
        tasks: By learner, how much its own losses count; 0 is off.
        factors: By term, how much it counts; 0 is off.
        due: The terms that are on.
        phase: Names of all that is on.
        runs: The learners that run in this step: a peer rests while it neither learns nor teaches.
        learn: Those that learn in this step; the others only teach, or give what losses train their own parts on.
        turn: Whose turn it is; None: all learn together.
        alone: Whether of the student only new rows train, see :class:`~.growth.Start`.
    """

    progress: Progress
    tasks: dict[str, float]
    factors: dict[str, float]
    due: list[Term]
    phase: tuple[str, ...]
    runs: set[str]
    learn: set[str]
    turn: str | None = None
    alone: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether all that learn do so from their own losses, so that these reach all of them."""
        return all(self.tasks[name] for name in self.learn)

    def tells(self, learner: str) -> bool:
        """Whether the log has this learner's own losses of this step, be they off by schedule."""
        return self.turn in (None, learner)


class Planner:
    """Knows all schedules of a distillation.

    Args:
        terms: Its losses.
        tasks: By learner, weight and schedule of its own losses.
        sources: By name, what teaches.
        alone: For so many epochs only new rows of the student train.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        tasks: Mapping[str, tuple[float, Schedule]],
        sources: Mapping[str, Source] | None = None,
        alone: int = 0,
    ) -> None:
        #: For so many epochs only new rows of the student train.
        self.alone = alone
        self._terms = list(terms)
        self._tasks = dict(tasks)
        self._apart = {name for name, source in (sources or {}).items() if source.learns and source.apart}
        asking = [(f'the {term.name} loss', term.needs) for term in terms]
        asking += [(f"the teacher '{name}'", source.needs) for name, source in (sources or {}).items()]
        self._asks = [
            f'{who} needs the {need}' for need in ('epoch', 'iteration') for who, own in asking if need in own
        ]
        self._checked = False
        #: Whose turn it is, which InTurnHook says.
        self.turns = Turns()
        names = {name: 'task' if name == 'student' else f'{name} task' for name in tasks}
        own = [(names[name], schedule) for name, (_, schedule) in tasks.items()]
        #: By name, those of all losses; the student's own are 'task'.
        self.schedules = [*((term.name, term.schedule) for term in terms), *own]
        self._weightless = [names[name] for name, (weight, _) in tasks.items() if not weight]
        #: The learners that others train while their own losses are off, always or at some time.
        self.without_task = [
            name
            for name, (weight, schedule) in tasks.items()
            if any(
                (not weight or _ever_without(term.schedule, schedule))
                for term in terms
                if term.learner == name and name in term.on and term.counts
            )
        ]
        #: Whether something is off at some time.
        self.phased = bool(alone) or any(schedule.phased for _, schedule in self.schedules)
        #: Whether the run is known to be so, which DistillHook says; to the message hub it is a run of one epoch.
        self.iteration_based = False

    def now(self) -> Plan:
        """The plan of this step.

        Raises:
            ValueError: In the first step: if something never counts, or at some time nothing would train.
            RuntimeError: If nothing trains now, or nobody says which epoch it is.
        """
        progress, turn = self._progress(), self.turns.learner
        tasks, factors = self._factors(progress)
        if turn is not None:
            tasks = {name: factor if self.turn_of(name) == turn else 0.0 for name, factor in tasks.items()}
            factors = {t.name: factors[t.name] if self.turn_of(t.learner) == turn else 0.0 for t in self._terms}
        due = [term for term in self._terms if factors[term.name]]
        phase = (*(name for name, factor in tasks.items() if factor), *(term.name for term in due))
        if not phase:
            raise RuntimeError(
                f'nothing trains in epoch {progress.epoch}, iteration {progress.iteration}: every loss is off by '
                'schedule'
            )
        named = {name for term in due for name in (term.learner, *term.sources)}
        runs = {name for name, factor in tasks.items() if factor or name == 'student' or name in named}
        learn = {name for name, factor in tasks.items() if factor}
        learn |= {term.learner for term in due if term.learner in term.on}
        learn |= {self.turn_of(name) for name in learn}  # what goes on from the student's pass trains the student
        alone = progress.epoch < self.alone
        phase = (*phase, *['new rows alone'] * alone)
        return Plan(progress, tasks, factors, due, phase, runs, learn, turn, alone)

    def has_turn(self) -> list[str]:
        """The learners for which something is on now, the student first."""
        tasks, factors = self._factors(self._progress())
        on = [name for name, factor in tasks.items() if factor]
        on += [term.learner for term in self._terms if factors[term.name]]
        on = [self.turn_of(name) for name in on]
        return [name for name in tasks if name in on]

    def turn_of(self, learner: str) -> str:
        """With whom one learns: by itself, or with the student, from whose pass it goes on."""
        return learner if learner in self._apart else 'student'

    def _factors(self, progress: Progress) -> tuple[dict[str, float], dict[str, float]]:
        """How much counts now: of learners' own losses, and of terms."""
        tasks = {name: weight * schedule.factor(progress) for name, (weight, schedule) in self._tasks.items()}
        return tasks, {term.name: term.factor(progress) for term in self._terms}

    def _progress(self) -> Progress:
        """How far the run is, from mmengine's message hub, where anything depends on it."""
        info = MessageHub.get_current_instance().runtime_info
        asks = [f'the {name} loss has a schedule' for name, schedule in self.schedules if not schedule.constant]
        asks += [f'start has alone={self.alone}'] * bool(self.alone)
        asks += self._asks
        if info.get('epoch') is None and asks:
            raise RuntimeError(
                f"{asks[0]}, and nobody says which epoch it is: train with mmengine's Runner, or call "
                "mmengine.logging.MessageHub.get_current_instance().update_info('epoch', n) and ('iter', n) in your "
                'own loop'
            )
        epoch, iteration = int(info.get('epoch') or 0), int(info.get('iter') or 0)
        progress = Progress(epoch, iteration, info.get('max_epochs'), info.get('max_iters'))
        if not self._checked and progress.epochs is not None:
            self._checked = True
            self._check(progress)
        return progress

    def check_run(self) -> None:
        """Before training: see that what is configured ever counts, if only epochs are counted.

        How many iterations a run has, some hooks tell only later, and the first step looks.

        Raises:
            ValueError: If something never counts, or at some time nothing would train.
        """
        known = MessageHub.get_current_instance().runtime_info.get('epoch') is not None
        if known and all(schedule.by_epoch or schedule.constant for _, schedule in self.schedules):
            self._progress()

    def _check(self, progress: Progress) -> None:
        """Once, before the first step: whether what is configured ever counts."""
        off = [term.name for term in self._terms if not term.counts]
        if off:
            print_log(f'{off} have loss_weight=0: they are off', 'current', logging.WARNING)
        off += self._weightless
        if self.alone and (self.iteration_based or self.alone >= (progress.epochs or 0)):
            raise ValueError(
                f'start has alone={self.alone}, after which all of the student trains, and this run '
                + (
                    'is iteration-based, one epoch to mmengine'
                    if self.iteration_based
                    else f'has {progress.epochs} epochs'
                )
                + ': expected fewer epochs than the run has'
            )
        check_schedules([pair for pair in self.schedules if pair[0] not in off], progress, self.iteration_based)


def _ever_without(schedule: Schedule, task: Schedule) -> bool:
    """Whether a loss may be on while the task loss is off."""
    if schedule.constant or not task.phased or schedule.by_epoch != task.by_epoch:
        return task.phased
    times = (Progress(t, t) for t in {0} | schedule.turns | task.turns)
    return any(schedule.factor(time) and not task.factor(time) for time in times)


def check_learners(tasks: Mapping[str, tuple[float, Schedule]], terms: Sequence[Term]) -> None:
    """See that each learner learns, and that its losses can be told apart in the log.

    Raises:
        ValueError: If one has no loss, or a name that would be added up.
    """
    for name, (weight, _) in tasks.items():
        if not weight and not any(term.learner == name and name in term.on and term.counts for term in terms):
            raise ValueError(
                f'nothing trains the {name}: its task_loss has the weight 0, and no loss with learner={name!r} has a '
                'weight and reads what it computes'
            )
        if name != 'student' and (not name.isidentifier() or 'loss' in name):
            raise ValueError(
                f"teachers has the peer '{name}', expected an identifier without 'loss' in it: mmengine would add up "
                'all that it logs'
            )
