"""Losses that use, frozen, what another one has trained before: a paraphraser, attention heads."""

import logging
from collections.abc import Sequence

from mmengine.logging import print_log

from .term import Term


def hand_over(terms: Sequence[Term]) -> list[Term]:
    """Give each loss the ones that it uses, see :attr:`DistillLoss.uses`.

    Args:
        terms: All losses.

    Returns:
        The same, in an order in which none comes before one that it uses.

    Raises:
        ValueError: If one names no such loss, reads its source elsewhere, or would begin before that has ended.
    """
    by_name = {term.name: term for term in terms}
    needed = {term.name: [_used(term, argument, by_name) for argument in term.uses] for term in terms}
    names = {used.name for others in needed.values() for used in others}
    if idle := [term.name for term in terms if term.learner not in term.on and term.name not in names]:
        print_log(
            f'{idle} train parts of their own on a teacher alone, and no loss uses them', 'current', logging.WARNING
        )
    order: dict[str, Term] = {}
    while len(order) < len(terms):
        ready = [n for n in by_name if n not in order and all(used.name in order for used in needed[n])]
        if not ready:
            raise ValueError(f'losses {sorted(by_name.keys() - order)} use each other in a circle')
        order |= {name: by_name[name] for name in ready}
    return list(order.values())


def _used(term: Term, argument: str, by_name: dict[str, Term]) -> Term:
    kind, name = term.uses[argument], getattr(term[0], argument)
    fitting = [other for other, used in by_name.items() if used.kind == kind]
    if name not in fitting:
        raise ValueError(
            f'{term.who} has {argument}={name!r}, expected the name of a {kind} in losses, which trains what it uses; '
            f'there is {fitting or "none"}'
        )
    used = by_name[name]
    if any(used.on[s] != term.on.get(s) for s in used.on if s != used.learner):
        read = {who.name: {s: [str(tap) for tap in who.taps(s)] for s in used.on} for who in (used, term)}
        raise ValueError(f'{term.who} uses what {used.who} was trained on, and they read {read}: name the same places')
    before, after = used.schedule, term.schedule
    if not used.counts:
        raise ValueError(f'{term.who} uses what {used.who} trains, which has loss_weight=0')
    if before.end is None or before.by_epoch != after.by_epoch or before.end > after.begin:
        raise ValueError(
            f'{term.who} uses what {used.who} trains, which must have ended before it begins, and they have {after} '
            f'and {before}: give one schedule=dict(end=N) and the other schedule=dict(begin=N)'
        )
    for own, other in zip(term, used, strict=True):
        own.take(argument, other)  # type: ignore[operator]
    return used
