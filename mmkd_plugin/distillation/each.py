"""`learner='each'`: one entry of `losses` by which every learner learns from every other one."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..options import check_mapping
from .read_losses import loss_class


class Entry(NamedTuple):
    """What becomes one term.

    Attributes:
        cfg: As ``losses`` has it, with one learner.
        share: How much of the loss's weight is the term's.
    """

    cfg: Mapping[str, Any]
    share: float = 1.0


def for_each_learner(losses: Mapping[str, Any], peers: Sequence[str]) -> dict[str, Entry]:
    """The entries of ``losses``, those of ``learner='each'`` once for each learner and each other one.

    With K learners these are K(K-1) terms, and each counts 1/(K-1): a learner minimises the mean over the others, as in
    Deep Mutual Learning (arXiv 1706.00384, eq. 8), which is not what it differs by from their mean. A loss that
    compares with several sources at once becomes K terms, each with all others.

    Args:
        losses: By name, as the config has them.
        peers: Who learns beside the student.

    Returns:
        By name: ``loss_kl`` becomes ``loss_kl_student`` and ``loss_kl_peer`` with one peer, and
        ``loss_kl_student_from_b`` and so on with several.

    Raises:
        ValueError: If there are no peers, a place is missing, the loss compares no two learners, or a name is taken.

    Example:
        >>> list(for_each_learner({'loss_kl': dict(type='KDLoss', on='head.fc', learner='each')}, ['peer']))
        ['loss_kl_student', 'loss_kl_peer']
    """
    found: dict[str, Entry] = {}
    for name, cfg in losses.items():
        given = isinstance(cfg, Mapping) and cfg.get('learner') == 'each'
        entries = _expand(str(name), cfg, ['student', *peers]) if given else {name: Entry(cfg)}
        if taken := sorted(key for key in entries if key in found or (given and key in losses and key != name)):
            raise ValueError(
                f"losses['{name}'] has learner='each' and would become {taken}, which are there: rename one"
            )
        found |= entries
    return found


def _expand(name: str, cfg: Mapping[str, Any], learners: list[str]) -> dict[str, Entry]:
    who = f"losses['{name}'] with learner='each'"
    if len(learners) == 1:
        raise ValueError(
            f"{who} needs peers, and there are none: teachers=dict(peer=dict(type='Peer', model=dict(...)))"
        )
    arguments = check_mapping(cfg, who, "dict(type='KDLoss', on='head.fc', learner='each')")
    if 'type' not in arguments or 'on' not in arguments:
        return {name: Entry(arguments)}  # the term says what is missing
    for key in ('teacher', 'through'):
        if arguments.pop(key, None) is not None:
            raise ValueError(
                f'{who} has {key}={cfg[key]!r}: every other learner teaches, and none of them sends through'
            )
    on, sides = arguments.pop('on'), loss_class(name, arguments['type']).sides
    entries = {}
    for learner in learners:
        others = [other for other in learners if other != learner]
        for taught_by in [others] if 'teachers' in sides else [[other] for other in others]:
            if 'student' not in sides or len(sides) == 1:
                raise ValueError(f'{who} has type={arguments["type"]!r}, which compares no learner with another')
            source = '' if len(taught_by) == len(others) else f'_from_{taught_by[0]}'
            places = _places(on, [learner, *taught_by], learners, who)
            share = len(taught_by) / len(others)
            entries[f'{name}_{learner}{source}'] = Entry({**arguments, 'learner': learner, 'on': places}, share)
    return entries


def _places(on: Any, sides: list[str], learners: list[str], who: str) -> Any:
    """What `on` says of these sides."""
    if isinstance(on, (list, tuple)):
        return [_places(item, sides, learners, who) for item in on]
    if not isinstance(on, Mapping):
        return dict.fromkeys(sides, on)
    if set(on) != set(learners):
        raise ValueError(f'{who} has on={on!r}, expected a path, or a place for each of {learners} and nobody else')
    return {side: on[side] for side in sides}
