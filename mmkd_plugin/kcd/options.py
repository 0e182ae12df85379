"""Options of KCDHook are what they say, or an error, before anything is built on them."""

from collections.abc import Sequence
from typing import Any

from ..options import check_number
from .valuation import RANDOM, TABLES, VALUES, ValueTable

_CHOICES: dict[str, tuple[str | None, ...]] = {
    'rank_over': ('all', 'kept'),
    'mixing': (None, 'convex', 'additive'),
    'dropped_value': ('last', 'aged', 'pass'),
}


def check_choice(value: Any, option: str) -> Any:
    """One of the names that an option knows.

    Raises:
        ValueError: If it is another.
    """
    known = (*VALUES, RANDOM) if option == 'value' else _CHOICES[option]
    if value not in known:
        raise ValueError(f'KCDHook: {option}={value!r} given, expected one of {", ".join(map(repr, known))}')
    return value


def check_dropped_value(dropped_value: Any, value: str, rank_over: str) -> str:
    """What dropped samples are ranked by, if they are, and if their values can be that.

    Raises:
        ValueError: If not.
    """
    dropped_value = str(check_choice(dropped_value, 'dropped_value'))
    why = None
    if dropped_value != 'last' and value == RANDOM:
        why = "value='random', which ranks by no value"
    elif dropped_value != 'last' and rank_over == 'kept':
        why = "rank_over='kept', which never ranks a dropped sample"
    elif dropped_value == 'aged' and TABLES.get(value, ValueTable).counts_events:
        why = f"value='{value}', which counts and never falls; 'pass' looks at dropped samples"
    if why:
        raise ValueError(
            f"KCDHook: dropped_value='{dropped_value}' given with {why}. Leave dropped_value at 'last', or change the "
            'other'
        )
    return dropped_value


def check_schedule(value: Any) -> str | list[float]:
    """``linear``, ``geometric`` or ratios; how many is known when the run's length is.

    Raises:
        ValueError: If it is neither, or a ratio is no number in (0, 1].
    """
    if value in ('linear', 'geometric'):
        return str(value)
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ValueError(
            f"KCDHook: keep_schedule={value!r} given, expected 'linear', 'geometric' or a list of ratios such as "
            '[0.9, 0.7], one for each round'
        )
    return [check_number(ratio, f'KCDHook: keep_schedule[{i}]', 0, 1, above=True) for i, ratio in enumerate(value)]


def check_path(value: Any) -> str | None:
    """A module's path, or None.

    Raises:
        ValueError: If it is neither.
    """
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ValueError(
            f"KCDHook: logits={value!r} given, expected the path of the student's classifier such as 'head.fc', or "
            'None to have it found'
        )
    return value
