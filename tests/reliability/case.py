"""A case of the campaign."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One row of a part's table.

    Attributes:
        name: Unique in its part.
        run: Given an empty folder; gives what was found as plain data, with a ``verdict``, ``fine`` where it is.
    """

    name: str
    run: Callable[[Path], dict[str, Any]]
