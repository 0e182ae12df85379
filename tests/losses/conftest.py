"""What the tests of several losses use."""

from collections.abc import Callable
from typing import Any

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


def value_and_gradient(function: Callable[..., Tensor], student: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    """A loss, and its gradient by the student's logits or map."""
    student = student.detach().clone().requires_grad_()
    value = function(student, *args)
    return value.detach(), torch.autograd.grad(value, student)[0]
