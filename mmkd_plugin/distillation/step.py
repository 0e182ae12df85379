"""The `distill` child of a distilled student: its losses, its teachers, one training step."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.logging import MessageHub, print_log
from torch import Tensor, nn

from ..networks.detectors import (
    BoxBranch,
    Region,
    example_rois,
    is_detector,
    read_regions,
    region_taps,
    settled_taps,
)
from ..networks.passes import probe
from ..networks.taps import Tap, Taps
from ..teachers import SizesBeforePadding, Teacher
from .finite import FiniteGuard
from .needs import Context
from .phases import Phases
from .resuming import compare_with_resumed
from .schedule import Schedule, check_schedules
from .term import ConfiguredLoss, check_losses, read_task_loss


class Distillation(nn.Module):
    """Owns losses (with their learnable parts) and teachers; computes what a step adds.

    Args:
        student: The model that is distilled; not kept.
        teachers: By name.
        losses: By name: ``dict(type=..., on=..., teacher=..., schedule=..., **arguments)``.
        task_loss: ``dict(loss_weight=1.0, schedule=dict(...))`` for the student's own losses.
        input_shape: (C, H, W) of the dry run; inferred from the student when None.

    Raises:
        ValueError: If names, taps, shapes or schedules do not fit; the message says which.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: dict[str, Teacher],
        losses: Mapping[str, Mapping[str, Any] | None],
        task_loss: Mapping[str, Any] | None = None,
        input_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        losses = check_losses(losses)
        _check_input_shape(input_shape)
        self.teachers = teachers
        self.losses = nn.ModuleDict({n: ConfiguredLoss(n, cfg, list(teachers)) for n, cfg in losses.items()})
        if unread := set(teachers) - {loss.teacher for loss in self.configured}:
            raise ValueError(f'no loss reads the teachers {sorted(unread)}: name them in a loss, or drop them')
        for loss in self.configured:
            loss.locate(student, teachers[loss.teacher].model)
        self.task_weight, self.task_schedule = read_task_loss(task_loss)
        #: Taps of the student that somebody else wants to read, such as KCDHook, and the box branches they lie in; the
        #: values of the last step, detached; and the RoIs that the student's box branches saw.
        self.observe: dict[Tap, BoxBranch | None] = {}
        self.observed: dict[Tap, Tensor] = {}
        self.regions: dict[BoxBranch, Region] = {}
        #: Whether the run is known to be so, which DistillHook says; to the message hub it is a run of one epoch.
        self.iteration_based = False
        self.finite = FiniteGuard()
        self.phases = Phases()
        self.sizes = SizesBeforePadding(student)
        self._phased = any(schedule.begin or schedule.end for _, schedule in self._schedules())
        self._clone: set[Tap] = set()
        self._checked = False
        self._dry_run(student, input_shape or infer_input_shape(student))

    @property
    def configured(self) -> list[ConfiguredLoss]:
        """The losses, in the order of the config."""
        return list(self.losses.values())  # type: ignore[arg-type]

    def _dry_run(self, student: nn.Module, input_shape: tuple[int, int, int]) -> None:
        """Learn all shapes, make the learnable parts, and try every loss once."""
        images = torch.zeros(2, *input_shape)
        images = images.to(next(student.parameters(), images))  # its device and dtype
        branches = _student_branches(self.configured)
        recorded, self._clone = probe(student, images, _student_taps(self.configured), 'student', branches)
        student_values = recorded.values()
        teacher_values = {
            name: teacher.probe(images, _teacher_taps(self.configured, name), _teacher_branches(self.configured, name))
            for name, teacher in self.teachers.items()
        }
        rois = example_rois(images)
        region = Region(rois, torch.zeros(len(rois), dtype=torch.int64, device=images.device))
        context = Context.example(images, dict.fromkeys(branches, region))
        for loss in self.configured:
            loss.connect(student_values, teacher_values[loss.teacher], context)

    def prepare(self, like: Tensor) -> None:
        """Make the teachers ready for tensors like this one; before training, and cheaply in each step."""
        for teacher in self.teachers.values():
            teacher.prepare(like)

    def step(
        self, student: nn.Module, run_student: Callable[[], dict[str, Any]], images: Tensor, data_samples: Any
    ) -> dict[str, Any]:
        """The student's own losses, weighted, and the distillation losses.

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
        self.prepare(images)
        epoch, iteration = self._progress()
        factors = {loss.name: loss.factor(epoch, iteration) for loss in self.configured}
        due = [loss for loss in self.configured if factors[loss.name]]
        task_factor = self.task_weight * self.task_schedule.factor(epoch, iteration)
        phase = (bool(task_factor), *(loss.name for loss in due))
        if not any(phase):
            raise RuntimeError(f'nothing trains in epoch {epoch}, iteration {iteration}: every loss is off by schedule')

        branches = sorted({*_student_branches(due), *filter(None, self.observe.values())})
        taps = [*_student_taps(due), *self.observe, *region_taps(branches)]
        recorded = Taps(student, taps, 'student', self._clone, settle=settled_taps(branches, taps))
        trains = torch.is_grad_enabled()
        watching: Any = self.phases.watching(student, phase) if trains and not task_factor else nullcontext({})
        with recorded.recording(), watching as nodes:
            losses = dict(run_student())
        if clash := [loss.name for loss in self.configured if loss.name in losses]:
            raise ValueError(f'the student already has losses {clash}: rename yours')
        regions = self.regions = read_regions(recorded, branches, len(images))
        seen = recorded.values(tap for tap in self.observe if recorded.peek(tap) is not None)
        self.observed = {tap: value.detach() for tap, value in seen.items()}
        active = [loss for loss in due if regions.keys() >= set(loss.student_branches)]
        student_values = recorded.values(_student_taps(active))
        losses = {name: _scaled(name, value, task_factor) for name, value in losses.items()}

        sizes = self.sizes.of(images, data_samples)
        teacher_values = {
            name: teacher(images, wanted, sizes, _teacher_rois(active, name, regions))
            for name, teacher in self.teachers.items()
            if (wanted := _teacher_taps(active, name))
        }
        context = Context(epoch, data_samples, images.device, regions)
        for loss in active:
            loss.check_gradient(student_values)
            value = loss(student_values, teacher_values[loss.teacher], context)
            losses[loss.name] = _scaled(loss.name, value, factors[loss.name])
        if trains and (self._phased or not task_factor or active != self.configured):
            self._leave_out(student, losses, due, active, phase, nodes)
        self.finite.watch(losses, images, student)
        return losses

    def _leave_out(
        self,
        student: nn.Module,
        losses: dict[str, Any],
        due: list[ConfiguredLoss],
        active: list[ConfiguredLoss],
        phase: tuple[Any, ...],
        nodes: dict[nn.Module, list[Any]],
    ) -> None:
        """Leave what is off as it is; `due` are the losses that the schedules want, `active` those that had RoIs."""
        off = [p for loss in self.configured if loss not in due for p in loss.parameters()]
        unused = [p for loss in due if loss not in active for p in loss.parameters()]
        if not phase[0]:  # the student's own losses are off
            values = [losses[loss.name] for loss in active]
            off = self.phases.find(student, phase, values, nodes, keep=active == due).parameters
            if active != due:  # other processes may have had RoIs
                off, unused = [], off
        zero = self.phases.leave_out(off, unused)
        if zero is not None:
            name = next(name for name in losses if 'loss' in name)
            value = losses[name]
            losses[name] = [value[0] + zero, *value[1:]] if isinstance(value, (list, tuple)) else value + zero

    def _progress(self) -> tuple[int, int]:
        """Epoch and iteration from mmengine's message hub, where anything depends on them."""
        info = MessageHub.get_current_instance().runtime_info
        asks = [f'the {name} loss has a schedule' for name, schedule in self._schedules() if not schedule.constant]
        asks += [f'the {loss.name} loss needs the epoch' for loss in self.configured if 'epoch' in loss.needs]
        if info.get('epoch') is None and asks:
            raise RuntimeError(
                f"{asks[0]}, and nobody says which epoch it is: train with mmengine's Runner, or call "
                "mmengine.logging.MessageHub.get_current_instance().update_info('epoch', n) and ('iter', n) in your "
                'own loop'
            )
        if not self._checked and info.get('max_epochs') is not None:
            self._checked = True
            self._check_plan(info['max_epochs'], info.get('max_iters'))
            compare_with_resumed(self)
        return int(info.get('epoch') or 0), int(info.get('iter') or 0)

    def _check_plan(self, epochs: int, iterations: int | None) -> None:
        """Once, before the first step: whether what is configured ever counts."""
        weightless = [
            loss.name for loss in self.configured if not loss.factor(loss.schedule.begin, loss.schedule.begin)
        ]
        if weightless:
            print_log(f'{weightless} have loss_weight=0: they are off', 'current', logging.WARNING)
        schedules = self._schedules() if self.task_weight else self._schedules()[:-1]
        schedules = [pair for pair in schedules if pair[0] not in weightless]
        check_schedules(schedules, epochs, iterations, self.iteration_based)

    def _schedules(self) -> list[tuple[str, Schedule]]:
        """By name, those of all losses; the student's own are 'task'."""
        return [*((loss.name, loss.schedule) for loss in self.configured), ('task', self.task_schedule)]


def _check_input_shape(shape: Any) -> None:
    if shape is None:
        return
    whole = (
        [isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape]
        if isinstance(shape, (tuple, list))
        else []
    )
    if len(whole) != 3 or not all(whole):
        raise ValueError(f'input_shape={shape!r} given, expected (channels, height, width)')


def infer_input_shape(student: nn.Module) -> tuple[int, int, int]:
    """(C, H, W): channels as normalised, or of the first convolution; the backbone's own image size, or 224."""
    mean = getattr(getattr(student, 'data_preprocessor', None), 'mean', None)
    convs = (m.in_channels for m in student.modules() if isinstance(m, nn.Conv2d))
    if isinstance(mean, Tensor) and mean.numel() > 1:
        channels = mean.numel()
    else:  # the first convolution of some detectors (YOLOX) sees pixels that were moved into channels
        channels = 3 if is_detector(student) else next(convs, 3)
    size: Any = getattr(getattr(student, 'backbone', None), 'img_size', 224)
    height, width = (size, size) if isinstance(size, int) else tuple(size)[:2]
    return channels, height, width


def _student_taps(losses: Iterable[ConfiguredLoss]) -> list[Tap]:
    return [tap for loss in losses for tap in loss.student_taps]


def _teacher_taps(losses: Iterable[ConfiguredLoss], teacher: str) -> list[Tap]:
    return [tap for loss in losses if loss.teacher == teacher for tap in loss.teacher_taps]


def _student_branches(losses: Iterable[ConfiguredLoss]) -> list[BoxBranch]:
    return sorted({branch for loss in losses for branch in loss.student_branches})


def _teacher_branches(losses: Iterable[ConfiguredLoss], teacher: str) -> dict[BoxBranch, BoxBranch]:
    """The teacher's box branches that are read, each with the student's branch whose RoIs it scores."""
    found: dict[BoxBranch, BoxBranch] = {}
    for loss in losses:
        for of_student, of_teacher in filter(None, loss.branches if loss.teacher == teacher else ()):
            if found.setdefault(of_teacher, of_student) != of_student:
                raise ValueError(
                    f'stage {of_teacher.stage} of {teacher} is compared with the stages {found[of_teacher].stage} and '
                    f'{of_student.stage} of the student, which sample different RoIs; choose one of them'
                )
    return found


def _teacher_rois(
    losses: Iterable[ConfiguredLoss], teacher: str, regions: Mapping[BoxBranch, Region]
) -> dict[BoxBranch, Tensor]:
    pairs = _teacher_branches(losses, teacher)
    return {of_teacher: regions[of_student].rois for of_teacher, of_student in pairs.items()}


def _scaled(name: str, value: Any, factor: float) -> Any:
    """A loss times a factor; other entries (accuracies) and factor 1 leave it as it is."""
    if 'loss' not in name or factor == 1:
        return value
    if factor == 0:  # and no way back, so that nothing is computed for it
        return [torch.zeros_like(v) for v in value] if isinstance(value, (list, tuple)) else torch.zeros_like(value)
    return [v * factor for v in value] if isinstance(value, (list, tuple)) else value * factor
