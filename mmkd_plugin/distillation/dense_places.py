"""A dense head named as a whole: the places that a loss then reads, level by level."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..networks import Network, Tap
from ..networks.dense_heads import OUTPUTS
from .read_losses import Sides


def whole_heads(
    on: Sides, through: Sequence[Tap], learner: str, loss: Any, networks: Mapping[str, Network], who: str
) -> tuple[Sides, list[Tap]]:
    """Where a loss of dense heads reads, ``bbox_head`` meaning all levels of all that it compares.

    A loss that crosses heads reads the learner after some convolutions of each branch, which is written at the same
    places of its source's.

    Args:
        on: By side, what the config says.
        through: Where it says that the learner's values go.
        learner: Who learns.
        loss: The loss.
        networks: By side.
        who: What reads them, for errors.

    Returns:
        The places by side, and where the learner's values go.

    Raises:
        ValueError: If a loss that crosses heads names something else than one head of each side, or the head cannot be
            cut there.
    """
    levels = {side: networks[side].count_levels(taps[0]) if len(taps) == 1 else 0 for side, taps in on.items()}
    crosses = getattr(loss, 'crosses_heads', False)
    if crosses and (through or not all(levels.values())):
        given = {side: [str(tap) for tap in taps] for side, taps in on.items()}
        raise ValueError(
            f"{who} takes a dense head as a whole, on='bbox_head', and finds itself where it cuts; on reads {given}"
            + (', and there is a `through`' if through else '')
        )
    written: dict[str, Any] = {}
    if crosses:
        written = {side: networks[side].cut(taps[0], loss.branches, loss.cut, who) for side, taps in on.items()}
        (source,) = (side for side in on if side != learner)
        through = written[source]
    outputs = _outputs(loss)
    spread = {
        side: [Tap(tap.path, index=(o, i)) for tap in taps for o in outputs for i in range(levels[side])] or taps
        for side, taps in on.items()
    }
    return {side: written[side] if crosses and side == learner else taps for side, taps in spread.items()}, [*through]


def _outputs(loss: Any) -> list[int]:

    return [OUTPUTS[output][0] for output in loss.dense_outputs]
