"""Options of KCDHook are what they say, or an error, before anything is built on them."""

from collections.abc import Sequence
from typing import Any

from ..options import check_number
from .valuation import RANDOM, VALUES

_CHOICES: dict[str, tuple[str | None, ...]] = {
    'rank_over': ('all', 'kept'),
    'mixing': (None, 'convex', 'additive'),
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
