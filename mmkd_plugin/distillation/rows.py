"""What the rows of a term's taps are, images or RoIs, and whether they can be compared."""

from collections.abc import Mapping
from itertools import chain

from ..networks import BoxBranch, Network, check_grids
from .term import Term


def locate(term: Term, networks: Mapping[str, Network]) -> None:
    """Find out what the rows of all taps of a term are.

    Args:
        term: Gets ``rows``; its losses, the grid of dense heads.
        networks: By side, whose modules its taps name.

    Raises:
        ValueError: If they have different ones, or if the loss asks for what its taps do not have.
    """
    found = {side: [networks[side].rows(tap) for tap in taps] for side, taps in term.on.items()}
    if term.learner not in term.on and any(branch for rows in found.values() for branch in rows):
        raise ValueError(f'{term.who} reads RoIs, which are those that a learner samples, and reads no learner')
    for tap in term.through:
        found.setdefault('through', []).append(networks[term.sources[0]].rows(tap))
    _check_rows(term, found)
    if not term[0].takes_rois and any(branch for rows in found.values() for branch in rows):
        raise ValueError(
            f'{term.who} knows something of each whole image, or its columns know no background, and reads RoIs: '
            'tap what has a row for each image'
        )
    if any(getattr(module, 'gather', False) for module in term) and any(
        branch and branch.stage for rows in found.values() for branch in rows
    ):
        raise ValueError(
            f'{term.who} has gather=True and reads a later stage of a cascade, which may have no RoIs in one '
            'process while the others wait for its rows: give gather=False'
        )
    if term.dense_outputs:
        _share_grid(term, networks)
    of_learner = found.get(term.learner) or [None]
    for side, taps in term.on.items():  # where lists differ in length, all rows are the same
        term.rows[side] = [of_learner[min(number, len(of_learner) - 1)] for number in range(len(taps))]
    for side, taps in term.on.items():
        for tap in taps:
            if term.compares_logits and not (term.through and side == term.learner):
                networks[side].check_logits(tap, term.who)
            if 'labels' in term.needs and side == term.learner:
                networks[side].check_labels(tap, term.who)


def _share_grid(term: Term, networks: Mapping[str, Network]) -> None:
    """See that all dense heads that it reads score the same places, and tell the loss which."""
    outputs = term.dense_outputs
    grids = {  # what goes through a source is read there
        side: networks[side].dense_grid(taps, outputs, term.who, read=not term.through or side != term.learner)
        for side, taps in term.on.items()
    }
    check_grids(grids, outputs, term.who)
    for module in term:
        module.grid = next(iter(grids.values()))  # type: ignore[assignment]


def _check_rows(term: Term, found: Mapping[str, list[BoxBranch | None]]) -> None:
    """Refuse to compare rows that are images with rows that are RoIs."""
    lengths = {len(rows) for rows in found.values()}
    layers = zip(*found.values(), strict=True) if len(lengths) == 1 else [list(chain(*found.values()))]
    for number, layer in enumerate(layers):
        if len({branch is None for branch in layer}) > 1:
            taps = {side: str(taps[min(number, len(taps) - 1)]) for side, taps in term.on.items()}
            raise ValueError(
                f'{term.who}: of {taps} some have a row for each RoI, others for each image; compare like with like'
            )
    if term.relates_layers and len(set(found.get(term.learner, []))) > 1 and (term.needs or len(lengths) > 1):
        raise ValueError(f'{term.who} relates taps that see different images or RoIs')
