"""What the metrics of old and of new classes share."""

from collections.abc import Mapping
from typing import Any


def check_fewer(old: int, meta: Mapping[str, Any] | None, who: str) -> None:
    """See that there are new classes.

    Raises:
        ValueError: If all are old.
    """
    classes = (meta or {}).get('classes')
    if classes is not None and old >= len(classes):
        raise ValueError(f'{who}: old={old} given, and the data know {len(classes)} classes: expected fewer')
