"""One entry of `losses` in a config: a loss, where it reads, which teacher, and when it counts."""

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..losses import DistillLoss
from ..networks.classifiers import check_reads_logits
from ..networks.detectors import BoxBranch, box_branch, is_detector
from ..networks.taps import Tap, find_module
from ..options import check_mapping, check_number
from .needs import PROVIDERS, Context
from .schedule import Schedule

Pair = tuple[Tap, Tap]


class ConfiguredLoss(nn.ModuleList):
    """The loss modules of one entry: one for each pair of taps, or one for all where layers are related.

    Args:
        name: Its key in ``losses``.
        cfg: ``dict(type=..., on=..., teacher=..., schedule=..., **arguments)``.
        teachers: The names there are.

    Raises:
        ValueError: If the name, a key, or what the loss needs is not understood.
    """

    def __init__(self, name: str, cfg: Mapping[str, Any], teachers: Sequence[str]) -> None:
        if not isinstance(name, str) or 'loss' not in name or not name.isidentifier() or name == 'loss':
            raise ValueError(
                f"losses={{'{name}': ...}} given; the name must be an identifier that contains 'loss', and more "
                f"(such as 'loss_{name}'): mmengine adds up only such entries, and 'loss' is the student's own"
            )
        example = "dict(type='KDLoss', on='head.fc', ...)"
        arguments = check_mapping(cfg, f"losses['{name}']", example)
        if not {'type', 'on'} <= set(arguments):
            raise ValueError(f"losses['{name}']={cfg!r} given, expected {example} with at least `type` and `on`")
        pairs = read_pairs(arguments.pop('on'), name)
        teacher = arguments.pop('teacher', None)
        if teacher is None and len(teachers) == 1:
            teacher = teachers[0]
        if teacher not in teachers:
            raise ValueError(f"losses['{name}'] names teacher={teacher!r}, expected one of {list(teachers)}")
        schedule = read_schedule(arguments.pop('schedule', None), name)
        modules = [_build(name, arguments) for _ in pairs]
        self.relates_layers = bool(getattr(modules[0], 'relates_layers', False))
        super().__init__(modules[:1] if self.relates_layers else modules)
        self.name, self.pairs, self.teacher, self.schedule = name, pairs, teacher, schedule
        self.branches: list[tuple[BoxBranch, BoxBranch] | None] = [None] * len(pairs)
        self.kind = type(modules[0]).__name__
        self.compares_logits = bool(getattr(modules[0], 'compares_logits', False))
        self.needs: tuple[str, ...] = tuple(getattr(modules[0], 'needs', ()))
        for need in self.needs:
            if need != 'epoch' and need not in PROVIDERS:
                raise ValueError(f'{self.kind} needs {need!r}; known: epoch, {", ".join(PROVIDERS)}')

    def factor(self, epoch: int, iteration: int) -> float:
        """How much of it counts now; 0 means off: outside its schedule, or with ``loss_weight=0``."""
        weighs = any(getattr(module, 'loss_weight', 1.0) for module in self)
        return self.schedule.factor(epoch, iteration) if weighs else 0.0

    @property
    def student_taps(self) -> list[Tap]:
        """What it reads of the student."""
        return [student for student, _ in self.pairs]

    @property
    def teacher_taps(self) -> list[Tap]:
        """What it reads of its teacher."""
        return [teacher for _, teacher in self.pairs]

    @property
    def student_branches(self) -> list[BoxBranch]:
        """Box branches of the student that its taps lie in."""
        return [branches[0] for branches in self.branches if branches]

    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        """Find out which pairs lie in the box branches of two-stage detectors.

        Raises:
            ValueError: If only one side of a pair does, or if the loss asks for what its taps do not have.
        """
        self.branches = []
        for at_student, at_teacher in self.pairs:
            find_module(student, at_student.path, 'student')
            find_module(teacher, at_teacher.path, self.teacher)
            of_student = box_branch(student, at_student.path, 'student')
            of_teacher = box_branch(teacher, at_teacher.path, self.teacher)
            if (of_student is None) != (of_teacher is None):
                raise ValueError(
                    f"losses['{self.name}']: one of student '{at_student}' and {self.teacher} '{at_teacher}' has a row "
                    'for each RoI, the other for each image; compare like with like'
                )
            if self.compares_logits:
                who = f"losses['{self.name}'] ({self.kind})"
                check_reads_logits(student, at_student, of_student, 'student', who)
                check_reads_logits(teacher, at_teacher, of_teacher, self.teacher, who)
            self.branches.append((of_student, of_teacher) if of_student and of_teacher else None)
        if 'labels' in self.needs and is_detector(student) and None in self.branches:
            raise ValueError(
                f"losses['{self.name}'] ({self.kind}) needs a class for each row, which a detector has for its RoIs: "
                "on='roi_head.bbox_head.fc_cls'. For one-stage detectors use a feature loss on the backbone or neck"
            )
        if self.relates_layers and self.needs and len(set(self.branches)) > 1:
            raise ValueError(f"losses['{self.name}'] ({self.kind}) relates taps that see different images or RoIs")

    def forward(self, student: Mapping[Tap, Tensor], teacher: Mapping[Tap, Tensor], context: Context) -> Tensor:
        """The value, summed over layers."""
        values = [
            module(s, t, **{need: context.get(need, branches and branches[0]) for need in self.needs})
            if all(map(len, s if self.relates_layers else [s]))
            else _zero(module, s)  # a detector without RoIs
            for module, s, t, branches in self._inputs(student, teacher)
        ]
        return torch.stack(values).sum() if len(values) > 1 else values[0]

    def connect(self, student: Mapping[Tap, Tensor], teacher: Mapping[Tap, Tensor], context: Context) -> None:
        """Make the learnable parts for tensors of a dry run, and try the loss on them.

        Raises:
            ValueError: If it cannot work on such tensors; the message gives taps and shapes.
        """
        try:
            for module, s, t, _ in self._inputs(student, teacher):
                if build := getattr(module, 'build_connectors', None):
                    build(_shape(s), _shape(t))
            like = next(iter(student.values()))
            self.to(like.device, like.dtype if like.is_floating_point() else None)
            self.eval()
            with torch.no_grad():
                value = self(student, teacher, context)
            self.train()
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise TypeError(f'it returned {value!r}, expected a scalar tensor')
        except torch.cuda.OutOfMemoryError:
            raise
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            where = '; '.join(
                f"student '{s}' {tuple(student[s].shape)}, {self.teacher} '{t}' {tuple(teacher[t].shape)}"
                for s, t in self.pairs
            )
            raise ValueError(
                f"losses['{self.name}'] ({self.kind}) cannot work on {where} (of a dry run with batch 2): {error}"
            ) from error

    def check_gradient(self, student: Mapping[Tap, Tensor]) -> None:
        """Refuse to teach nothing.

        Raises:
            RuntimeError: If a tapped tensor of the student carries no gradient.
        """
        dead = [str(tap) for tap in self.student_taps if not student[tap].requires_grad]
        # a loss that relates layers teaches as long as one of them learns
        if torch.is_grad_enabled() and dead and (not self.relates_layers or len(dead) == len(self.pairs)):
            raise RuntimeError(
                f"losses['{self.name}'] reads {dead} of the student, which carries no gradient, so that would teach "
                'nothing: it is frozen, detached, or inside an activation checkpoint (with_cp=True). Tap a later module'
            )

    def _inputs(
        self, student: Mapping[Tap, Tensor], teacher: Mapping[Tap, Tensor]
    ) -> Iterator[tuple[nn.Module, Any, Any, tuple[BoxBranch, BoxBranch] | None]]:
        """Each module with its two tensors, or its two lists of tensors, and where they were read."""
        if self.relates_layers:
            layers = [student[s] for s in self.student_taps], [teacher[t] for t in self.teacher_taps]
            yield self[0], *layers, self.branches[0]
        else:
            for module, (s, t), branches in zip(self, self.pairs, self.branches, strict=True):
                yield module, student[s], teacher[t], branches


def check_losses(losses: Any) -> dict[str, Any]:
    """The entries of ``losses`` that are meant; one set to None (by a child config or ``--cfg-options``) is dropped.

    Raises:
        ValueError: If there are none, or it is no dictionary.
    """
    example = "dict(loss_kd=dict(type='KDLoss', on='head.fc'))"
    if not isinstance(losses, Mapping) or not losses:
        raise ValueError(f'losses={losses!r} given, expected {example}')
    left = {name: cfg for name, cfg in losses.items() if cfg is not None}
    if not left:
        raise ValueError(f'all of losses={losses!r} are dropped; to train the plain student use its own config')
    return left


def _build(name: str, cfg: Mapping[str, Any]) -> DistillLoss:
    """The loss module; mistakes are told with the entry's name."""
    kind = cfg['type']
    with MODELS.switch_scope_and_registry(None) as registry:  # the default scope's, as for every nested type
        loss_class = registry.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(loss_class, type) and issubclass(loss_class, DistillLoss)):
        known = sorted(k for k, v in MODELS.module_dict.items() if isinstance(v, type) and issubclass(v, DistillLoss))
        near = difflib.get_close_matches(str(kind), known, n=2)
        raise ValueError(
            f"losses['{name}'] has type={kind!r}, "
            + ('which is not registered' if loss_class is None else 'which is no DistillLoss')
            + (f'; did you mean {" or ".join(near)}?' if near else '.')
            + f' Known: {", ".join(known)}. A loss of your own derives from mmkd_plugin.DistillLoss and is registered '
            'in mmengine.registry.MODELS'
        )
    try:
        return loss_class(**{key: value for key, value in cfg.items() if key != 'type'})
    except (TypeError, ValueError) as error:
        raise ValueError(f"losses['{name}']: {error}. {loss_class.__name__}{inspect.signature(loss_class)}") from error


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
        sides = [[on[s]] if isinstance(on[s], str) else on[s] for s in ('student', 'teacher')]
        if all(isinstance(side, (list, tuple)) for side in sides) and len(sides[0]) == len(sides[1]) > 0:
            return [(Tap.parse(s), Tap.parse(t)) for s, t in zip(*sides, strict=True)]
    raise ValueError(
        f"losses['{name}'] has on={on!r}, expected 'module.path', dict(student='module.path', teacher='module.path') "
        'or a list of these'
    )


def read_schedule(cfg: Mapping[str, Any] | None, name: str) -> Schedule:
    """A schedule from its dict (None: always active).

    Raises:
        ValueError: If a key is unknown or the interval is empty.
    """
    known = ('begin', 'end', 'warmup', 'by_epoch')
    cfg = check_mapping({} if cfg is None else cfg, f"schedule of '{name}'", f'dict({"=..., ".join(known)}=...)')
    for key in cfg:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ValueError(
                f"schedule of '{name}' has the unknown key '{key}'"
                + (f' (did you mean {near[0]}?)' if near else '')
                + f', expected {", ".join(known)}'
            )
    try:
        return Schedule(**cfg)
    except ValueError as error:
        raise ValueError(f"'{name}': {error}") from error


def read_task_loss(cfg: Mapping[str, Any] | None) -> tuple[float, Schedule]:
    """Weight and schedule of the student's own losses.

    Raises:
        ValueError: If a key is unknown or the weight is negative.
    """
    example = 'dict(loss_weight=1.0, schedule=dict(begin=0, end=None, warmup=0))'
    cfg = check_mapping({} if cfg is None else cfg, 'task_loss', example)
    weight = check_number(cfg.pop('loss_weight', 1.0), 'task_loss: loss_weight')
    schedule = read_schedule(cfg.pop('schedule', None), 'task_loss')
    if cfg:
        raise ValueError(f'task_loss has the unknown keys {sorted(cfg)}, expected {example}')
    return weight, schedule


def _zero(module: nn.Module, taps: Tensor | Sequence[Tensor] = ()) -> Tensor:
    """Zero that depends on a module's learnable parts and on tapped tensors."""
    tensors = [taps] if isinstance(taps, Tensor) else taps
    return torch.stack([tensor.float().sum() for tensor in (*tensors, *module.parameters())]).sum() * 0.0


def _shape(value: Tensor | list[Tensor]) -> Any:
    return [v.shape for v in value] if isinstance(value, list) else value.shape
