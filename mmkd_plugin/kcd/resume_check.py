"""Whether a checkpoint's values belong to the data, the options and the rounds of the run that takes them over."""

from collections.abc import Mapping, Sequence
from typing import Any

#: Options of KCDHook that a resumed run must share. The others show in the rounds and in how many each keeps, where a
#: longer run may go on.
SHARED = ('value', 'dropped_value', 'logits', 'begin', 'alpha', 'rank_over', 'mixing', 'epsilon_max', 'cumulative')
#: Options that checkpoints of earlier versions do not tell, and what they were.
_EARLIER = {'dropped_value': 'last'}
_ANEW = 'or start anew from its weights with load_from'


def check_rounds(state: Mapping[str, Any], rounds: Sequence[int], counts: Sequence[int]) -> None:
    """Compare the rounds that were done with the first of the new plan.

    Raises:
        ValueError: If they came after other epochs or kept other numbers.
    """
    done = len(state['rounds'])
    if (state['rounds'], state['counts']) != (rounds[:done], counts[:done]):
        raise ValueError(
            f'KCDHook: the checkpoint comes from rounds after the epochs {state["rounds"]}, which kept '
            f'{state["counts"]}; this run would have had {rounds[:done]} and {counts[:done]}. Resume '
            'with the same interval, begin, final_ratio, keep_schedule and max_epochs, or say keep_schedule=[...]'
        )


def check_next_round(planned: int, epochs: int) -> None:
    """Refuse a plan whose next round should have been before.

    Raises:
        ValueError: If it comes after fewer epochs than are done.
    """
    if planned < epochs:
        raise ValueError(
            f'KCDHook: the next round of this run is planned after epoch {planned}, but {epochs} epochs are done, and '
            f'it would never come. Resume with the interval, begin and keep_schedule of then, {_ANEW}'
        )


def check_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare the options that decide what values mean and what is done with them.

    Raises:
        ValueError: If some differ.
    """
    before = {**_EARLIER, **before}
    other = [name for name in SHARED if name in before and before[name] != now[name]]
    if other:
        then, this = (', '.join(f'{name}={options[name]!r}' for name in other) for options in (before, now))
        raise ValueError(
            f'KCDHook: the checkpoint was written with {then}; this run has {this}. Resume with the options of then, '
            f'{_ANEW}'
        )


def check_data(before: str, now: str) -> None:
    """Compare fingerprints of data of the same length.

    Raises:
        ValueError: If they differ.
    """
    if before != now:
        raise ValueError(
            'KCDHook: the training data have as many entries as those of the checkpoint, but other images, other '
            'labels or another order, and its values and kept samples are known by their places there. Resume with '
            f'the annotations, filters and order of data sets of then, {_ANEW}'
        )
