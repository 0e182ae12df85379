"""The `distill` child of a distilled student: its losses, its teachers, one training step."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from torch import Tensor, nn

from .context import PROVIDERS
from .schedule import Schedule
from .taps import Tap, Taps
from .teachers import Teacher, probe

Pair = tuple[Tap, Tap]


@dataclass
class Entry:
    """One configured loss: where it reads, when it counts."""

    name: str
    pairs: list[Pair]
    teacher: str
    schedule: Schedule


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
        self.teachers = teachers
        self.losses = nn.ModuleDict()
        self.entries = [self._read_entry(name, cfg) for name, cfg in losses.items()]
        self.task_weight, self.task_schedule = _read_task_loss(task_loss)
        self._clone: set[Tap] = set()
        self._last: dict[str, Tensor] = {}
        self._dry_run(student, input_shape or infer_input_shape(student))

    def _read_entry(self, name: str, cfg: Mapping[str, Any]) -> Entry:
        if 'loss' not in name or not name.isidentifier():
            raise ValueError(
                f"losses={{'{name}': ...}} given; the name must be an identifier that contains "
                f"'loss' (such as 'loss_{name}'), because mmengine adds up only such entries"
            )
        if not isinstance(cfg, Mapping) or not {'type', 'on'} <= set(cfg):
            raise ValueError(
                f"losses['{name}']={cfg!r} given, expected "
                "dict(type='KDLoss', on='head.fc', ...) with at least `type` and `on`"
            )
        cfg = dict(cfg)
        pairs = read_pairs(cfg.pop('on'), name)
        teacher = cfg.pop('teacher', None)
        if teacher is None and len(self.teachers) == 1:
            teacher = next(iter(self.teachers))
        if teacher not in self.teachers:
            raise ValueError(
                f"losses['{name}'] names teacher={teacher!r}, expected one of {list(self.teachers)}"
            )
        schedule = _read_schedule(cfg.pop('schedule', None), name)
        per_layer = [MODELS.build(dict(cfg)) for _ in pairs]
        if getattr(per_layer[0], 'relates_layers', False):
            per_layer = per_layer[:1]
        for need in getattr(per_layer[0], 'needs', ()):
            if need != 'epoch' and need not in PROVIDERS:
                raise ValueError(
                    f'{type(per_layer[0]).__name__} needs {need!r}; known: epoch, '
                    f'{", ".join(PROVIDERS)}'
                )
        self.losses[name] = nn.ModuleList(per_layer)
        return Entry(name, pairs, teacher, schedule)

    def _dry_run(self, student: nn.Module, input_shape: tuple[int, int, int]) -> None:
        """Learn all shapes, make the learnable parts, and try every loss once."""
        device = next((p.device for p in student.parameters()), torch.device('cpu'))
        images = torch.zeros(2, *input_shape, device=device)
        recorded, self._clone = probe(
            student, images, [s for e in self.entries for s, _ in e.pairs], 'student'
        )
        student_values = recorded.values()
        teacher_values = {
            name: teacher.probe(
                images, [t for e in self.entries if e.teacher == name for _, t in e.pairs]
            )
            for name, teacher in self.teachers.items()
        }
        context = {
            'labels': torch.zeros(2, dtype=torch.int64, device=device),
            'sample_idx': torch.arange(2, device=device),
            'epoch': 0,
        }
        for entry in self.entries:
            read_t = teacher_values[entry.teacher]
            for module, pairs in self._calls(entry):
                values = [student_values[s] for s, _ in pairs], [read_t[t] for _, t in pairs]
                try:
                    if hasattr(module, 'build_connectors'):
                        module.build_connectors(*_arguments(module, *_shapes(*values)))
                        module.to(device)
                    module.eval()
                    with torch.no_grad():
                        value = self._compute(module, *values, context)
                    module.train()
                    if not isinstance(value, Tensor) or value.numel() != 1:
                        raise TypeError(f'it returned {value!r}, expected a scalar tensor')
                except (ValueError, TypeError, RuntimeError, IndexError) as error:
                    where = '; '.join(
                        f"student '{s}' {tuple(a.shape)}, {entry.teacher} '{t}' {tuple(b.shape)}"
                        for (s, t), a, b in zip(pairs, *values, strict=True)
                    )
                    raise ValueError(
                        f"losses['{entry.name}'] ({type(module).__name__}) cannot work on {where} "
                        f'(shapes of a dry run with batch 2, images {input_shape}): {error}'
                    ) from error

    def _calls(self, entry: Entry) -> list[tuple[nn.Module, list[Pair]]]:
        """The entry's loss modules, each with the pairs it reads."""
        modules = list(self.losses[entry.name])  # type: ignore[arg-type]
        if getattr(modules[0], 'relates_layers', False):
            return [(modules[0], entry.pairs)]
        return [(module, [pair]) for module, pair in zip(modules, entry.pairs, strict=True)]

    @staticmethod
    def _compute(
        module: nn.Module, student: list[Tensor], teacher: list[Tensor], context: Mapping[str, Any]
    ) -> Tensor:
        needs = {need: context[need] for need in getattr(module, 'needs', ())}
        return module(*_arguments(module, student, teacher), **needs)

    def prepare(self) -> None:
        """Load the teachers' weights, before training starts. Does nothing the second time."""
        for teacher in self.teachers.values():
            teacher.prepare()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        for teacher in self.teachers.values():
            teacher.apply_(fn)
        return super()._apply(fn, recurse)

    def step(
        self,
        student: nn.Module,
        run_student: Callable[[], dict[str, Any]],
        images: Tensor,
        data_samples: Any,
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
        self.prepare()
        epoch, iteration = self._progress()
        factors = {e.name: e.schedule.factor(epoch, iteration) for e in self.entries}
        active = [entry for entry in self.entries if factors[entry.name]]

        taps = Taps(student, [s for e in active for s, _ in e.pairs], 'student', self._clone)
        with taps.recording():
            losses = dict(run_student())
        student_values = taps.values()
        task_factor = self.task_weight * self.task_schedule.factor(epoch, iteration)
        losses = {name: _scaled(name, value, task_factor) for name, value in losses.items()}

        samples = data_samples if isinstance(data_samples, (list, tuple)) else None
        teacher_values = {
            name: teacher(images, wanted, samples)
            for name, teacher in self.teachers.items()
            if (wanted := [t for e in active if e.teacher == name for _, t in e.pairs])
        }
        context = self._context(active, data_samples, images.device, epoch)
        for entry in self.entries:
            if entry.name in losses:
                raise ValueError(f"the student already has a loss '{entry.name}': rename yours")
            if not factors[entry.name]:
                # learnable parts stay in the graph, so that DDP finds all its parameters used
                if parameters := list(self.losses[entry.name].parameters()):
                    losses[entry.name] = sum(p.sum() for p in parameters) * 0.0
                continue
            read_t = teacher_values[entry.teacher]
            _check_gradient(entry, student_values)
            value = sum(
                self._compute(module, [student_values[s] for s, _ in pairs],
                              [read_t[t] for _, t in pairs], context)
                for module, pairs in self._calls(entry)
            )  # fmt: skip
            losses[entry.name] = value * factors[entry.name] if factors[entry.name] != 1 else value
        self._watch(losses)
        return losses

    def _context(
        self, active: list[Entry], data_samples: Any, device: torch.device, epoch: int
    ) -> dict[str, Any]:
        needs = {n for e in active for m in self.losses[e.name] for n in getattr(m, 'needs', ())}  # type: ignore[union-attr]
        context = {n: PROVIDERS[n](data_samples, device) for n in needs if n != 'epoch'}
        return {**context, 'epoch': epoch}

    def _progress(self) -> tuple[int, int]:
        """Epoch and iteration from mmengine's message hub, where any schedule needs them."""
        hub = MessageHub.get_current_instance()
        epoch, iteration = hub.runtime_info.get('epoch'), hub.runtime_info.get('iter')
        schedules = [entry.schedule for entry in self.entries] + [self.task_schedule]
        if epoch is None and not all(schedule.constant for schedule in schedules):
            raise RuntimeError(
                'a loss has a schedule, and nobody says which epoch it is: train with '
                "mmengine's Runner, or call mmengine.logging.MessageHub.get_current_instance()"
                ".update_info('epoch', n) and ('iter', n) in your own loop"
            )
        return int(epoch or 0), int(iteration or 0)

    def _watch(self, losses: Mapping[str, Any]) -> None:
        """Remember this step's values. On a CPU they are looked at now; on a GPU in the next step,
        when they are long computed, so that no step waits for the device."""
        values = {n: v for n, v in losses.items() if 'loss' in n and isinstance(v, Tensor)}
        self._last = {name: value.detach() for name, value in values.items()}
        if all(value.device.type == 'cpu' for value in values.values()):
            self._check_finite()

    def _check_finite(self) -> None:
        last, self._last = self._last, {}
        if not last or torch.stack([v.float().sum() for v in last.values()]).isfinite().all():
            return
        bad = {name: float(v.float().sum()) for name, v in last.items() if not v.isfinite().all()}
        raise FloatingPointError(
            f'not finite: {bad}; all losses of the step: '
            f'{ {name: float(v.float().sum()) for name, v in last.items()} }. Lower the learning '
            'rate or that loss_weight, or give the loss schedule=dict(warmup=...)'
        )


def read_pairs(on: Any, name: str) -> list[Pair]:
    """Student and teacher taps of a loss.

    Args:
        on: ``'head.fc'`` (both sides), ``dict(student=..., teacher=...)``, or a list of those;
            the two values of a dict may be lists of equal length.
        name: The loss, for errors.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> [(str(s), str(t)) for s, t in read_pairs(dict(student='a', teacher='b'), 'loss')]
        [('a', 'b')]
    """
    if isinstance(on, str):
        return [(Tap.parse(on), Tap.parse(on))]
    if isinstance(on, (list, tuple)) and on:
        return [pair for item in on for pair in read_pairs(item, name)]
    if isinstance(on, Mapping) and set(on) == {'student', 'teacher'}:
        sides = [[on[s]] if isinstance(on[s], str) else list(on[s]) for s in ('student', 'teacher')]
        if len(sides[0]) == len(sides[1]) > 0:
            return [(Tap.parse(s), Tap.parse(t)) for s, t in zip(*sides, strict=True)]
    raise ValueError(
        f"losses['{name}'] has on={on!r}, expected 'module.path', "
        "dict(student='module.path', teacher='module.path') or a list of these"
    )


def _read_schedule(cfg: Mapping[str, Any] | None, name: str) -> Schedule:
    known = ('begin', 'end', 'warmup', 'by_epoch')
    for key in cfg or ():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ValueError(
                f"schedule of '{name}' has the unknown key '{key}'"
                + (f' (did you mean {near[0]}?)' if near else '')
                + f', expected {", ".join(known)}'
            )
    return Schedule(**cfg or {})


def _read_task_loss(cfg: Mapping[str, Any] | None) -> tuple[float, Schedule]:
    cfg = dict(cfg or {})
    weight = float(cfg.pop('loss_weight', 1.0))
    schedule = _read_schedule(cfg.pop('schedule', None), 'task_loss')
    if cfg or not 0 <= weight < float('inf'):
        raise ValueError(
            f'task_loss has loss_weight={weight} and the unknown keys {sorted(cfg)}, expected '
            'dict(loss_weight=a number >= 0, schedule=dict(begin=0, end=None, warmup=0))'
        )
    return weight, schedule


def infer_input_shape(student: nn.Module) -> tuple[int, int, int]:
    """Channels of the first convolution; the backbone's own image size, or 224."""
    convs = (m.in_channels for m in student.modules() if isinstance(m, nn.Conv2d))
    size: Any = getattr(getattr(student, 'backbone', None), 'img_size', 224)
    height, width = (size, size) if isinstance(size, int) else tuple(size)[:2]
    return next(convs, 3), height, width


def _shapes(*sides: list[Tensor]) -> list[list[torch.Size]]:
    return [[tensor.shape for tensor in side] for side in sides]


def _arguments(module: nn.Module, student: list[Any], teacher: list[Any]) -> tuple[Any, Any]:
    """Lists for a loss that relates layers, single values for all others."""
    if getattr(module, 'relates_layers', False):
        return student, teacher
    return student[0], teacher[0]


def _scaled(name: str, value: Any, factor: float) -> Any:
    if 'loss' not in name or factor == 1:
        return value
    return [v * factor for v in value] if isinstance(value, (list, tuple)) else value * factor


def _check_gradient(entry: Entry, values: Mapping[Tap, Tensor]) -> None:
    if torch.is_grad_enabled() and not any(values[s].requires_grad for s, _ in entry.pairs):
        raise RuntimeError(
            f"losses['{entry.name}'] reads {[str(s) for s, _ in entry.pairs]} of the student, and "
            'none of these carries a gradient, so it would teach nothing: they are frozen, '
            'detached, or inside an activation checkpoint (with_cp=True). Tap a later module'
        )
