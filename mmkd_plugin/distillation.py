"""The `distill` child of a distilled student: its losses, its teachers, one training step."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from mmengine.logging import MessageHub, print_log
from torch import Tensor, nn

from .configured_loss import ConfiguredLoss, read_task_loss
from .context import Context
from .detectors import (
    BoxBranch,
    Region,
    example_rois,
    is_detector,
    read_regions,
    region_taps,
    settled_taps,
)
from .forward import probe
from .taps import Tap, Taps
from .teachers import Teacher


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
        losses: Mapping[str, Mapping[str, Any]],
        task_loss: Mapping[str, Any] | None = None,
        input_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(losses, Mapping) or not losses:
            raise ValueError(f"losses={losses!r} given, expected dict(loss_kd=dict(type='KDLoss', on='head.fc'))")
        if input_shape is not None and (not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3):
            raise ValueError(f'input_shape={input_shape!r} given, expected (channels, height, width)')
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
        self._clone: set[Tap] = set()
        self._last: dict[str, Tensor] = {}
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
        self._check_finite()
        self.prepare(images)
        epoch, iteration = self._progress()
        factors = {loss.name: loss.schedule.factor(epoch, iteration) for loss in self.configured}
        active = [loss for loss in self.configured if factors[loss.name]]

        branches = sorted({*_student_branches(active), *filter(None, self.observe.values())})
        taps = [*_student_taps(active), *self.observe, *region_taps(branches)]
        recorded = Taps(student, taps, 'student', self._clone, settle=settled_taps(branches, taps))
        with recorded.recording():
            losses = dict(run_student())
        regions = self.regions = read_regions(recorded, branches, len(images))
        seen = recorded.values(tap for tap in self.observe if recorded.peek(tap) is not None)
        self.observed = {tap: value.detach() for tap, value in seen.items()}
        active = [loss for loss in active if regions.keys() >= set(loss.student_branches)]
        student_values = recorded.values(_student_taps(active))
        task_factor = self.task_weight * self.task_schedule.factor(epoch, iteration)
        losses = {name: _scaled(name, value, task_factor) for name, value in losses.items()}

        samples = data_samples if isinstance(data_samples, (list, tuple)) else None
        teacher_values = {
            name: teacher(images, wanted, samples, _teacher_rois(active, name, regions))
            for name, teacher in self.teachers.items()
            if (wanted := _teacher_taps(active, name))
        }
        context = Context(epoch, data_samples, images.device, regions)
        for loss in self.configured:
            if loss.name in losses:
                raise ValueError(f"the student already has a loss '{loss.name}': rename yours")
            if loss in active:
                loss.check_gradient(student_values)
                value = loss(student_values, teacher_values[loss.teacher], context)
                losses[loss.name] = _scaled(loss.name, value, factors[loss.name])
            elif (zero := loss.idle()) is not None:
                losses[loss.name] = zero
        self._watch(losses)
        return losses

    def _progress(self) -> tuple[int, int]:
        """Epoch and iteration from mmengine's message hub, where any schedule needs them."""
        info = MessageHub.get_current_instance().runtime_info
        schedules = [loss.schedule for loss in self.configured] + [self.task_schedule]
        if info.get('epoch') is None and not all(schedule.constant for schedule in schedules):
            raise RuntimeError(
                "a loss has a schedule, and nobody says which epoch it is: train with mmengine's Runner, or call "
                "mmengine.logging.MessageHub.get_current_instance().update_info('epoch', n) and ('iter', n) in your "
                'own loop'
            )
        self._check_schedules(info.get('max_epochs'))
        return int(info.get('epoch') or 0), int(info.get('iter') or 0)

    def _check_schedules(self, epochs: int | None) -> None:
        """Once: whether the run is long enough for its schedules.

        Raises:
            ValueError: If a loss would never begin.
        """
        if self._checked or epochs is None:
            return
        self._checked = True
        hint = 'To mmengine an iteration-based loop is one epoch: there, set by_epoch=False in the schedule'
        for name, schedule in [(loss.name, loss.schedule) for loss in self.configured] + [('task', self.task_schedule)]:
            if schedule.by_epoch and schedule.begin >= epochs:
                raise ValueError(
                    f'the {name} loss begins at epoch {schedule.begin} (from 0), and this run has {epochs}. {hint}'
                )
            if schedule.by_epoch and schedule.begin + schedule.warmup > epochs:
                text = f'the {name} loss warms up over {schedule.warmup} epochs, and this run has {epochs}. {hint}'
                print_log(text, 'current', logging.WARNING)

    def _watch(self, losses: Mapping[str, Any]) -> None:
        """Remember this step's values.

        On a CPU they are looked at now, before the update; on a GPU in the next step, when they
        are long computed, so that no step waits for the device.
        """
        values = {n: v if isinstance(v, (list, tuple)) else [v] for n, v in losses.items() if 'loss' in n}
        self._last = {n: torch.stack([t.detach().float().sum() for t in v]).sum() for n, v in values.items() if v}
        if all(value.device.type == 'cpu' for value in self._last.values()):
            self._check_finite()

    def _check_finite(self) -> None:
        last, self._last = self._last, {}
        if not last or torch.stack(list(last.values())).isfinite().all():
            return
        sums = {name: float(value) for name, value in last.items()}
        bad = {name: value for name, value in sums.items() if not torch.tensor(value).isfinite()}
        raise FloatingPointError(
            f'not finite: {bad}; all losses of the step: {sums}. Lower the learning rate or that loss_weight, or give '
            'the loss schedule=dict(warmup=...)'
        )


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
    return [v * factor for v in value] if isinstance(value, (list, tuple)) else value * factor
