"""Logits for the tests of the losses that compare them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Logits = Callable[..., tuple[Tensor, Tensor, Tensor]]


@pytest.fixture
def logits() -> Logits:
    """Makes a student's and a teacher's float64 logits (N, C) and labels (N,)."""

    def make(n: int = 4, classes: int = 5, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        student, teacher = (scale * torch.randn(n, classes, generator=generator, dtype=torch.float64) for _ in range(2))
        return student, teacher, torch.randint(classes, (n,), generator=generator)

    return make


@pytest.fixture
def saturated() -> tuple[Tensor, Tensor]:
    """Float32 logits (729, 3): every pair of rows whose entries are -1e4, 0 or 1e4."""
    values = torch.tensor([-1e4, 0.0, 1e4])
    rows = torch.cartesian_prod(values, values, values)
    return rows.repeat_interleave(len(rows), 0), rows.repeat(len(rows), 1)
