"""CRD straight from its formulas: one sample and one number at a time, in float64, differentiated by autograd."""

from collections.abc import Sequence

import torch
from torch import Tensor


def score(a: Tensor, b: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for x, y in zip(a, b, strict=True):
        total = total + x * y
    return total


def side(own: Tensor, bank: Tensor, indices: Tensor, z: float, tau: float, eps: float) -> Tensor:
    """One network's loss: -mean [log h(positive) + sum log(1 - h(negative))], noise K/n."""
    noise = (indices.size(1) - 1) / len(bank)
    total = torch.zeros((), dtype=torch.float64)
    for g, row in zip(own, indices.tolist(), strict=True):
        for place, k in enumerate(row):
            v = torch.exp(score(g, bank[k]) / tau) / z
            total = total - torch.log((noise if place else v) / (v + noise + eps))
    return total / len(own)


def normalizer(own: Tensor, bank: Tensor, indices: Tensor, tau: float) -> float:
    """The number of rows times the mean exponential of all scores of a batch."""
    values = [
        float(torch.exp(score(g.detach(), bank[k]) / tau))
        for g, row in zip(own, indices.tolist(), strict=True)
        for k in row
    ]
    return len(bank) * sum(values) / len(values)


def queue_side(
    own: Tensor, other: Tensor, queue: Tensor, others: Tensor, negatives: int, z: float, tau: float, eps: float
) -> Tensor:
    """The positive is the other network's embedding; the negatives' mean counts K times."""
    noise = negatives / len(queue)
    total = torch.zeros((), dtype=torch.float64)
    for g, positive, marked in zip(own, other.detach(), others, strict=True):
        v = torch.exp(score(g, positive) / tau) / z
        total = total - torch.log(v / (v + noise + eps))
        rows = [row for row, is_other in zip(queue, marked.tolist(), strict=True) if is_other]
        for row in rows:
            v = torch.exp(score(g, row) / tau) / z
            total = total - negatives / len(rows) * torch.log(noise / (v + noise + eps))
    return total / len(own)


def moved(bank: Tensor, index: Sequence[int], embedding: Tensor, momentum: float) -> Tensor:
    """A bank after an update: of a sample that is met twice, the last embedding counts."""
    after = bank.clone()
    for i, g in dict(zip(index, embedding, strict=True)).items():
        row = momentum * bank[i] + (1 - momentum) * g
        after[i] = row / torch.sqrt(score(row, row))
    return after
