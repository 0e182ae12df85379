"""What a config says of losses: the taps of each side, schedules, weights. Mistakes are told with the entry's name."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS

from ..losses import DistillLoss
from ..networks import Tap
from ..options import check_mapping, check_number
from ..teachers import EXAMPLE
from .schedule import Schedule

#: By side (``student``, or the name of a source), where a loss reads.
Sides = dict[str, list[Tap]]


def check_losses(losses: Any, may_be_empty: bool = False) -> dict[str, Any]:
    """The entries of ``losses`` that are meant; one set to None (by a child config or ``--cfg-options``) is dropped.

    Args:
        losses: As a config gives them.
        may_be_empty: Whether there may be none.

    Raises:
        ValueError: If there are none, or it is no dictionary.
    """
    example = "dict(loss_kd=dict(type='KDLoss', on='head.fc'))"
    if not isinstance(losses, Mapping) or not (losses or may_be_empty):
        raise ValueError(f'losses={losses!r} given, expected {example}')
    left = {name: cfg for name, cfg in losses.items() if cfg is not None}
    if not left and not may_be_empty:
        raise ValueError(f'all of losses={losses!r} are dropped; to train the plain student use its own config')
    return left


def check_name(name: Any) -> None:
    """Whether mmengine would add up a loss of this name.

    Raises:
        ValueError: If not.
    """
    if not isinstance(name, str) or 'loss' not in name or not name.isidentifier() or name == 'loss':
        raise ValueError(
            f"losses={{'{name}': ...}} given; the name must be an identifier that contains 'loss', and more "
            f"(such as 'loss_{name}'): mmengine adds up only such entries, and 'loss' is the student's own"
        )


def loss_class(name: str, kind: Any) -> type[DistillLoss]:
    """The class that ``type`` means.

    Raises:
        ValueError: If it is not registered, or no distillation loss.
    """
    with MODELS.switch_scope_and_registry(None) as registry:  # the default scope's, as for every nested type
        found = registry.get(kind) if isinstance(kind, str) else kind
    if isinstance(found, type) and issubclass(found, DistillLoss):
        return found
    known = sorted(k for k, v in MODELS.module_dict.items() if isinstance(v, type) and issubclass(v, DistillLoss))
    near = difflib.get_close_matches(str(kind), known, n=2)
    raise ValueError(
        f"losses['{name}'] has type={kind!r}, "
        + ('which is not registered' if found is None else 'which is no DistillLoss')
        + (f'; did you mean {" or ".join(near)}?' if near else '.')
        + f' Known: {", ".join(known)}. A loss of your own derives from mmkd_plugin.DistillLoss and is registered '
        'in mmengine.registry.MODELS'
    )


def build_loss(name: str, kind: type[DistillLoss], arguments: Mapping[str, Any]) -> DistillLoss:
    """One loss module.

    Raises:
        ValueError: If it does not take the arguments.
    """
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"losses['{name}']: {error}. {kind.__name__}{inspect.signature(kind)}") from error


def read_on(
    on: Any,
    name: str,
    sources: Sequence[str] = ('teacher',),
    teacher: str | None = None,
    learner: str = 'student',
    sides: Sequence[str] = ('student', 'teacher'),
) -> Sides:
    """The taps of each side that a loss reads.

    Args:
        on: ``'head.fc'`` (the same path on all sides), ``dict(student=..., teacher=...)`` where every key but that of
            the learner names a source, or a list of those; the values of a dict may be lists. The key ``teacher`` means
            the only source, or the one that ``teacher`` names.
        name: The loss, for errors.
        sources: The names that there are; ``student`` is one more where a peer learns.
        teacher: The source that is meant where ``on`` does not name it.
        learner: Who learns.
        sides: What the loss reads, see ``DistillLoss.sides``.

    Returns:
        The learner first, if the loss reads it.

    Raises:
        ValueError: If it is none of these, or names what is not there.

    Example:
        >>> sides = read_on(dict(student='a', teacher=['b', 'c']), 'loss_x')
        >>> {side: [str(tap) for tap in taps] for side, taps in sides.items()}
        {'student': ['a'], 'teacher': ['b', 'c']}
    """
    others = [side for side in ('student', *sources) if side != learner]
    if teacher is not None and teacher not in others:
        raise ValueError(f"losses['{name}'] names teacher={teacher!r}, expected one of {others}")
    items = _flat(on)
    keys = dict.fromkeys(key for item in items if isinstance(item, Mapping) for key in item if key != learner)
    meaning = {learner: learner, **{key: _meant_source(key, name, others, teacher, learner) for key in keys}}
    named = [meaning[key] for key in keys]
    if teacher is not None and named and teacher not in named:
        raise ValueError(f"losses['{name}'] names teacher={teacher!r}, and on reads {named}: say one of them")
    if 'teachers' in sides:
        read = named or ([teacher] if teacher else others)
    elif 'teacher' in sides:
        read = named or [_only_source(name, others, teacher)]
    else:
        read = named
    if len(read) > (len(others) if 'teachers' in sides else 'teacher' in sides):
        raise ValueError(f"losses['{name}'] reads {read}, and compares {' with '.join(sides)}: name as many in `on`")
    found: dict[str, list[Any]] = {side: [] for side in ([learner] if 'student' in sides else []) + read}
    for item in items:
        given = {meaning[key]: value for key, value in item.items()} if isinstance(item, Mapping) else item
        here = {side: given.get(side) if isinstance(given, Mapping) else given for side in found}
        lists = {side: list(v) if isinstance(v, (list, tuple)) else [v] for side, v in here.items()}
        unequal = len(items) > 1 and len({len(paths) for paths in lists.values()}) > 1
        if unequal or (isinstance(given, Mapping) and not given.keys() <= found.keys()):
            _refuse(on, name, list(found))
        for side, paths in lists.items():
            found[side] += paths
    if not all(found.values()) or not all(isinstance(path, str) for paths in found.values() for path in paths):
        _refuse(on, name, list(found))
    return {side: [Tap.parse(path) for path in paths] for side, paths in found.items()}


def _flat(on: Any) -> list[Any]:
    """Its items, those of lists in lists too."""
    return [inner for item in on for inner in _flat(item)] if isinstance(on, (list, tuple)) else [on]


def _meant_source(key: str, name: str, others: Sequence[str], teacher: str | None, learner: str) -> str:
    """The source that a key of `on` means."""
    if key in others and (key != 'teacher' or teacher is None):
        return key
    if key != 'teacher':
        near = difflib.get_close_matches(str(key), [learner, *others], n=1)
        raise ValueError(
            f"losses['{name}'] has on=dict({key}=...)"
            + (f' (did you mean {near[0]}?)' if near else '')
            + f", expected '{learner}', who learns, and {' or '.join(others) or 'nothing else'}"
        )
    return _only_source(name, others, teacher)


def _only_source(name: str, others: Sequence[str], teacher: str | None) -> str:
    """The one that is meant where none is named."""
    if not others:
        raise ValueError(
            f"losses['{name}'] reads a teacher, and there is none: give either teacher=... or "
            f'teachers=dict(name=...): {EXAMPLE}'
        )
    if teacher is None and len(others) != 1:
        raise ValueError(f"losses['{name}'] names teacher=None, expected one of {list(others)}")
    return teacher or others[0]


def _refuse(on: Any, name: str, sides: list[str]) -> None:
    if isinstance(on, Mapping) and (missing := [side for side in sides if side not in on and 'teacher' not in on]):
        raise ValueError(f"losses['{name}'] has on={on!r}, which says nothing of {' and '.join(missing)}")
    example = ', '.join(f"{side}='module.path'" for side in sides)
    raise ValueError(
        f"losses['{name}'] has on={on!r}, expected 'module.path', dict({example}) or a list of these, where "
        'module.path may be a list of paths'
    )


def read_through(given: Any, who: str) -> list[Tap]:
    """Where the learner's values are written into a source's pass.

    Raises:
        ValueError: If it is no path, and no list of paths.
    """
    paths = [given] if isinstance(given, str) else given
    if not isinstance(paths, (list, tuple)) or not all(isinstance(path, str) for path in paths):
        raise ValueError(f"{who} has through={given!r}, expected 'module.path' of the source, or a list of these")
    return [Tap.parse(path) for path in paths]


def read_schedule(cfg: Mapping[str, Any] | None, name: str) -> Schedule:
    """A schedule from its dict (None: always active).

    Raises:
        ValueError: If a key is unknown or the interval is empty.
    """
    known = tuple(inspect.signature(Schedule).parameters)
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


def read_task_loss(cfg: Mapping[str, Any] | None, name: str = 'task_loss') -> tuple[float, Schedule]:
    """Weight and schedule of a learner's own losses.

    Raises:
        ValueError: If a key is unknown or the weight is negative.
    """
    example = 'dict(loss_weight=1.0, schedule=dict(begin=0, end=None, warmup=0))'
    cfg = check_mapping({} if cfg is None else cfg, name, example)
    weight = check_number(cfg.pop('loss_weight', 1.0), f'{name}: loss_weight')
    schedule = read_schedule(cfg.pop('schedule', None), name)
    if cfg:
        raise ValueError(f'{name} has the unknown keys {sorted(cfg)}, expected {example}')
    return weight, schedule


def check_input_shape(shape: Any) -> None:
    """Whether it is (C, H, W), or None.

    Raises:
        ValueError: If it is something else.
    """
    if shape is None:
        return
    fine = isinstance(shape, (tuple, list)) and len(shape) == 3
    if not fine or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
        raise ValueError(f'input_shape={shape!r} given, expected (channels, height, width)')
