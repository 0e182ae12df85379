"""What every backbone's test asks."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def classifier_parameters() -> Callable[[nn.Module, int, int], int]:
    """Counts the parameters of a backbone and of the linear classifier after it."""

    def count(backbone: nn.Module, channels: int, classes: int) -> int:
        return sum(p.numel() for p in backbone.parameters()) + (channels + 1) * classes

    return count


@pytest.fixture
def check_train_step() -> Callable[[nn.Module, int], None]:
    """One SGD step on a random batch: every parameter gets a finite gradient, and moves by it."""

    def check(backbone: nn.Module, size: int) -> None:
        torch.manual_seed(0)
        backbone.train()
        backbone.init_weights()  # type: ignore[operator]
        images = torch.randn(4, 3, size, size)
        features = backbone(images)[-1].mean((2, 3))
        # without a head: the first channels serve as logits
        loss = nn.functional.cross_entropy(features[:, :10], torch.arange(4))
        loss.backward()
        before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
        torch.optim.SGD(backbone.parameters(), lr=0.1).step()
        for name, parameter in backbone.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * parameter.grad)

    return check
