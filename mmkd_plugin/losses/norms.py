"""Batch norms of connectors, which must train on whatever batch the student trains on."""

import torch.nn.functional as F
from torch import Tensor, nn


def _train_on_one(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor | None:
    """The output where batch statistics are those of one value, which is no statistics; None elsewhere."""
    if not norm.training or x.numel() != x.size(1):
        return None
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


class ConnectorNorm1d(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` that normalises a single row (1, C) by its running statistics, and leaves these as they are.

    The last batch of an epoch may hold one image; the plain student trains on it, and so does the distilled one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) to (N, C)."""
        alone = _train_on_one(self, x)
        return super().forward(x) if alone is None else alone


class ConnectorNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that treats a single pixel (1, C, 1, 1) as :class:`ConnectorNorm1d` does a single row."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        alone = _train_on_one(self, x)
        return super().forward(x) if alone is None else alone
