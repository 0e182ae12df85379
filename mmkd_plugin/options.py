"""Checking what a config or a command line gives: a word is no boolean, and no number."""

import math
from collections.abc import Mapping
from typing import Any


def check_bool(value: Any, name: str) -> bool:
    """The value, if it is True or False.

    Args:
        value: What was given.
        name: What the error calls it, such as ``teacher: trust_pickle``.

    Raises:
        ValueError: If it is anything else; ``'no'`` or ``0`` say something else to Python than to a reader.

    Example:
        >>> check_bool('no', 'untrained')
        Traceback (most recent call last):
        ValueError: untrained='no' given, expected True or False
    """
    if not isinstance(value, bool):
        raise ValueError(f'{name}={value!r} given, expected True or False')
    return value


def check_number(value: Any, name: str, low: float = 0.0, high: float = math.inf, above: bool = False) -> float:
    """The value as a float, if it is a finite number in [low, high].

    Args:
        value: What was given.
        name: What the error calls it.
        low: The least that is allowed.
        high: The most that is allowed.
        above: Whether ``low`` itself is not allowed.

    Raises:
        ValueError: If it is no number (booleans and words are none) or out of range.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high or (above and value == low):
        most = '' if high == math.inf else f' and <= {high:g}'
        raise ValueError(f'{name}={value!r} given, expected a finite number {">" if above else ">="} {low:g}{most}')
    return float(value)


def check_whole(value: Any, name: str, low: int = 0) -> int:
    """The value, if it is a whole number >= low.

    Raises:
        ValueError: If it is not (booleans and words are none).
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f'{name}={value!r} given, expected a whole number >= {low}')
    return value


def check_mapping(value: Any, name: str, example: str) -> dict[str, Any]:
    """A copy of the value, if it is a dictionary with words as keys.

    Args:
        value: What was given.
        name: What the error calls it.
        example: What the error shows.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f'{name}={value!r} given, expected a dictionary such as {example}')
    return dict(value)
