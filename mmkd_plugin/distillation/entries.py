"""Entries of what a model gives as its losses."""

from typing import Any

import torch
from torch import Tensor


def tensors(entry: Any) -> list[Tensor]:
    """Of an entry, which is one or a list of them."""
    return list(entry) if isinstance(entry, (list, tuple)) else [entry]


def scaled(name: str, value: Any, factor: float) -> Any:
    """A loss times a factor; other entries (accuracies) and factor 1 leave it as it is."""
    if 'loss' not in name or factor == 1:
        return value
    if factor == 0:  # and no way back, so that nothing is computed for it
        return [torch.zeros_like(v) for v in value] if isinstance(value, (list, tuple)) else torch.zeros_like(value)
    return [v * factor for v in value] if isinstance(value, (list, tuple)) else value * factor
