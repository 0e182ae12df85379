"""The `distill` child of a distilled student: its losses, its sources, one training step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..facts import Batch, Progress, TrainingData
from ..networks import BoxBranch, Network, Tap, Taps, network_of
from ..networks.regions import read_regions, region_taps, settled_taps
from ..randomness import keep_random_state
from ..teachers import Frozen, Own, SizesBeforePadding, Source, check_apart
from .checks import assigned_taps, check_term
from .each import for_each_learner
from .entries import scaled, tensors
from .example import example_pass
from .finite import FiniteGuard
from .growth import Start
from .phase_log import PhaseLog
from .plan import Plan, Planner, check_learners
from .read_losses import check_input_shape, check_losses, read_task_loss
from .resume_check import compare_with_resumed
from .routes import Routes
from .rows import locate
from .term import Term
from .untouched import Phases, teaching_only
from .uses import hand_over


class Distillation(nn.Module):
    """Owns losses (with their learnable parts) and sources; computes what a step adds.

    Args:
        student: The model that is distilled; not kept.
        sources: By name.
        losses: By name: ``dict(type=..., on=..., teacher=..., schedule=..., **arguments)``.
        task_loss: ``dict(loss_weight=1.0, schedule=dict(...))`` for the student's own losses.
        input_shape: (C, H, W) of the dry run; inferred from the student when None.
        start: The teacher whose weights the student starts from, see :class:`~.growth.Start`; with one, there may be no
            losses.

    Raises:
        ValueError: If names, taps, shapes or schedules do not fit; the message says which.
    """

    def __init__(
        self,
        student: nn.Module,
        sources: dict[str, Source],
        losses: Mapping[str, Mapping[str, Any] | None],
        task_loss: Mapping[str, Any] | None = None,
        input_shape: tuple[int, int, int] | None = None,
        start: Any = None,
    ) -> None:
        super().__init__()
        check_input_shape(input_shape)
        self.start = None if start is None else Start(start, student, sources)
        if self.start:
            sources[self.start.teacher].weights_wanted = True
        peers = {name: source for name, source in sources.items() if source.learns}
        losses = check_losses(losses, may_be_empty=start is not None)
        entries = for_each_learner(losses, [name for name, peer in peers.items() if peer.apart])
        face = network_of(student)
        networks = {'student': face, **{name: source.network(face) for name, source in sources.items()}}
        terms = {n: Term(n, e.cfg, list(sources), list(peers), e.share, networks) for n, e in entries.items()}
        self.losses = nn.ModuleDict(terms)
        self._in_order = hand_over(self.terms)
        read = {side for term in self.terms for side in (term.learner, *term.sources)}
        if unread := set(sources) - read - ({self.start.teacher} if self.start else set()):
            raise ValueError(f'no loss reads the teachers {sorted(unread)}: name them in a loss, or drop them')
        check_apart({'student': student, **{name: source.model for name, source in sources.items()}})
        #: Everything that teaches, by name; its peers learn from the student.
        self.sources = {**sources, 'student': Own('student')} if peers else sources
        #: The networks that learn beside the student.
        self.peers = nn.ModuleDict({name: peer.model for name, peer in peers.items()})
        #: What other sources keep in checkpoints.
        self.kept = nn.ModuleDict({name: source.kept for name, source in sources.items() if source.kept is not None})
        tasks = {'student': read_task_loss(task_loss)}
        tasks |= {name: read_task_loss(peer.task_loss, f'{name}: task_loss') for name, peer in peers.items()}
        check_learners(tasks, self.terms)
        self.routes = Routes(self.sources)
        #: What is on when.
        self.planner = Planner(self.terms, tasks, self.sources, self.start.alone if self.start else 0)
        #: The training data, which DistillHook tells.
        self.data = TrainingData()
        #: Taps of the student that somebody else wants to read, such as KCDHook, and the box branches they lie in; the
        #: values of the last step, detached; and the RoIs that the student's box branches saw.
        self.observe: dict[Tap, BoxBranch | None] = {}
        self.observed: dict[Tap, Tensor] = {}
        self.regions: dict[BoxBranch, Any] = {}
        #: The same of teachers, by name: some of the taps that losses read there, with the student's box branches whose
        #: RoIs are their rows. They are read in every step, also where no loss that is on asks for them.
        self.observe_taught: dict[str, dict[Tap, BoxBranch | None]] = {}
        self.observed_taught: dict[str, dict[Tap, Tensor]] = {}
        #: Who is shown the losses of each step, by name and with their graph, before they are added up. A copy of the
        #: model takes them along, so that whoever listens should be here for a step, and not for a run.
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        self.finite = FiniteGuard()
        self.phases = Phases()
        self.phase_log = PhaseLog()
        self.sizes = SizesBeforePadding(student)
        self._clone: set[Tap] = set()
        self._compared_with_resumed = self._loaded = False
        self._dry_run(network_of(student), input_shape)
        #: Names and shapes of what is learnable here; engines that shard parameters change both later.
        self.learnable = [[f'distill.{name}', list(p.shape)] for name, p in self.named_parameters()]

    @property
    def terms(self) -> list[Term]:
        """The losses, in the order of the config."""
        return list(self.losses.values())  # type: ignore[arg-type]

    @property
    def teachers(self) -> dict[str, Frozen]:
        """The sources that were trained before."""
        return {name: source for name, source in self.sources.items() if isinstance(source, Frozen)}

    def _beside(self) -> dict[str, Source]:
        """The sources that learn."""
        return {name: source for name, source in self.sources.items() if source.learns}

    def needs(self, need: str) -> bool:
        """Whether a loss asks for something."""
        return any(need in term.needs for term in self.terms)

    def _dry_run(self, student: Network, input_shape: tuple[int, int, int] | None) -> None:
        """Learn all shapes, make the learnable parts, and try every loss once."""
        networks = {'student': student, **{name: source.network(student) for name, source in self.sources.items()}}
        for term in self.terms:
            locate(term, networks)
            check_term(term, student, self.sources)
        #: By dense head, where the student's own loss is told which class each position is of.
        self._assigned = assigned_taps(self.terms, student)
        shapes = [input_shape] if input_shape else student.input_shapes()
        batch, taught, self._clone = example_pass(student, self.sources, self.terms, self.routes, shapes)
        batch.values |= {name: taught[name] for name in self._beside()}
        for term in self._in_order:
            compared = self.routes.tried(term, batch, taught)
            term.connect(compared, batch, networks)

    def prepare(self, student: nn.Module, like: Tensor, progress: Progress | None = None) -> None:
        """Make the sources ready for tensors like this one; before training, and cheaply in each step.

        The first time: weights are loaded, losses see them, and only then are frozen networks made cheaper.
        """
        if not self._loaded:
            with keep_random_state():  # peers draw their weights, one after the other
                for source in self.sources.values():
                    source.load()
                if self.start:
                    self.start.copy(student, self.data, initialized=progress is None)
                face = network_of(student)
                networks = {name: source.network(face).model for name, source in self.sources.items()}
                classes = {name: teacher.classes for name, teacher in self.teachers.items()}
                changing = {name for name, source in self.sources.items() if source.changes}
                for term in self._in_order:
                    term.prepare({'student': student, **networks}, self.data, classes, changing)
            self._loaded = True
        for source in self.sources.values():
            source.get_ready(like, student, progress)

    def step(
        self, student: nn.Module, run_student: Callable[[], dict[str, Any]], images: Tensor, data_samples: Any
    ) -> dict[str, Any]:
        """The learners' own losses, weighted, and the distillation losses.

        Args:
            student: The student, whose modules are tapped.
            run_student: Its own forward in ``loss`` mode; called once.
            images: (N, C, H, W), what the student sees.
            data_samples: The batch's data samples (or label tensor).

        Returns:
            One flat dictionary, ``loss_*`` names as configured.

        Raises:
            RuntimeError: If a tap did not run or carries no gradient.
            FloatingPointError: If a loss is not finite; the message names it.
        """
        self.finite.check()
        plan = self.planner.now()
        self.prepare(student, images, plan.progress)
        if not self._compared_with_resumed and plan.progress.epochs is not None:
            self._compared_with_resumed = True
            compare_with_resumed(self)
        batch = Batch(images, data_samples, self.sizes.of(images, data_samples), plan.progress)
        for name, taps in self._wanted(plan.due, self.observe_taught).items():
            self.sources[name].begin(batch, taps)
        trains = torch.is_grad_enabled()
        watching: Any = nullcontext({})
        if trains and not plan.is_plain:
            watching = self.phases.watching(student, plan.phase)
        waiting = self.start.waiting(student, plan.alone) if self.start else nullcontext()
        with watching as nodes, waiting:
            losses, active = self._learn(student, run_student, batch, plan)
        losses |= self._teach(batch, active, plan)
        all_learn = len(plan.learn) == 1 + len(self.peers)
        if trains and (self.planner.phased or not plan.is_plain or active != self.terms or not all_learn):
            off = self._leave_out(student, losses, plan, active, nodes)
            if self.planner.phased:
                self.phase_log.tell(student, plan, off)
        self.finite.watch(losses, images, student)
        return losses

    def _learn(
        self, student: nn.Module, run_student: Callable[[], dict[str, Any]], batch: Batch, plan: Plan
    ) -> tuple[dict[str, Any], list[Term]]:
        """The learners' own passes: the student's, tapped, then its peers'.

        Returns:
            Their losses, weighted; and the terms whose RoIs there were.
        """
        branches = sorted({*_branches(plan.due), *filter(None, self.observe.values())})
        taps = [*self.routes.asked('student', plan.due), *self.observe, *region_taps(branches)]
        settle = settled_taps(branches, taps)
        recorded = Taps(student, taps, 'student', self._clone, settle=settle, every=self._assigned.values())
        with recorded.recording(), _pass_of(student, 'student' in plan.learn):
            own = dict(run_student())
        if clash := [term.name for term in self.terms if term.name in own]:
            raise ValueError(f'the student already has losses {clash}: rename yours')
        batch.regions = self.regions = read_regions(recorded, branches, len(batch.images))
        batch.assigned = {head: _labels(recorded.all_of(tap)) for head, tap in self._assigned.items()}
        seen = recorded.values(tap for tap in self.observe if recorded.peek(tap) is not None)
        self.observed = {tap: value.detach() for tap, value in seen.items()}
        active = [term for term in plan.due if batch.regions.keys() >= term.branches]
        batch.values['student'] = recorded.values(self.routes.asked('student', active))
        found = {name: scaled(name, value, plan.tasks['student']) for name, value in own.items()}
        losses = found if plan.tells(self.planner.turn_of('student')) else {}
        for name, peer in self._beside().items():
            if name in plan.runs:
                with _pass_of(peer.model, name in plan.learn):
                    own = peer.learn(batch, self.routes.asked(name, active))
                found = {f'{name}.{key}': scaled(key, value, plan.tasks[name]) for key, value in own.items()}
                losses |= found if plan.tells(self.planner.turn_of(name)) else {}
        return losses, active

    def _teach(self, batch: Batch, active: Sequence[Term], plan: Plan) -> dict[str, Tensor]:
        """What the sources say of the batch, and the losses that compare it with what the learners say."""
        observed = {
            name: {tap: rows for tap, rows in taps.items() if rows is None or rows in batch.regions}
            for name, taps in self.observe_taught.items()
        }
        wanted = self._wanted(active, observed)
        taught = {name: self.sources[name].read(batch, taps) for name, taps in wanted.items() if taps}
        self.observed_taught = {name: {tap: taught[name][tap] for tap in taps} for name, taps in observed.items()}
        losses = {}
        for term in active:
            compared = self.routes.compared(term, batch, taught)
            if term.learner in term.on:
                term.check_gradient(compared[term.learner], self.planner.alone if plan.alone else 0)
            value = term(compared, batch)
            if torch.is_grad_enabled() and not value.requires_grad:
                raise RuntimeError(f'{term.who} gives a value without gradient, so that it would teach nothing')
            losses[term.name] = scaled(term.name, value, plan.factors[term.name])
        return losses

    def _wanted(
        self, terms: Sequence[Term], observed: Mapping[str, dict[Tap, BoxBranch | None]]
    ) -> dict[str, dict[Tap, BoxBranch | None]]:
        """By source, what is read of it."""
        return {name: self.routes.wanted(name, terms) | observed.get(name, {}) for name in self.sources}

    def _leave_out(
        self,
        student: nn.Module,
        losses: dict[str, Any],
        plan: Plan,
        active: Sequence[Term],
        nodes: dict[nn.Module, list[Any]],
    ) -> list[nn.Parameter]:
        """Leave what is off as it is, and say what that is.

        `plan.due` are the terms that schedules want, `active` those that had RoIs.
        """
        resting = [peer for name, peer in self.peers.items() if name not in plan.learn]
        off = [p for part in (*self.terms, *resting) if part not in plan.due for p in part.parameters()]
        if 'student' not in plan.learn:
            off += [p for name, p in student.named_parameters() if not name.startswith('distill.')]
        unused = [p for term in plan.due if term not in active for p in term.parameters()]
        complete = list(active) == plan.due
        if not plan.is_plain:  # what is on may reach a part of the learners only
            values = [value for name, entry in losses.items() if 'loss' in name for value in tensors(entry)]
            off = self.phases.find(student, plan.phase, values, nodes, keep=complete).parameters
            if not complete:  # other processes may have had RoIs
                off, unused = [], off
        if self.start and plan.alone:
            off = [*off, *self.start.off(student)]
        zero = self.phases.leave_out(off, unused)
        if zero is not None:
            name = next(name for name in losses if 'loss' in name)
            value = losses[name]
            losses[name] = [value[0] + zero, *value[1:]] if isinstance(value, (list, tuple)) else value + zero
        return off


def _pass_of(network: nn.Module, learns: bool) -> AbstractContextManager[Any]:
    """Around a learner's training pass, from which it may learn nothing now."""
    return nullcontext() if learns or not torch.is_grad_enabled() else teaching_only(network)


def _branches(terms: Iterable[Term]) -> list[BoxBranch]:
    return sorted({branch for term in terms for branch in term.branches})


def _labels(told: Iterable[Any]) -> list[Tensor]:
    """Of what classification losses take in, some with a score beside the labels."""
    return [item[0] if isinstance(item, (list, tuple)) else item for item in told]
