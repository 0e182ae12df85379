"""Noise contrastive estimates over memories: scores in their cheapest form, and a gradient that needs none of them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .base import full_precision

DENSE = 32  # a product with a row of a memory takes about so many times less than fetching the row for one sample
CHUNK = 2**24  # numbers that are in memory at once, 64 MiB


@dataclass(frozen=True)
class Form:
    """The numbers of the estimate.

    Attributes:
        temperature: Of the scores.
        negatives: K.
        samples: n, of which the noise distribution gives each 1 / n.
        eps: Added to K / n.
    """

    temperature: float
    negatives: int
    samples: int
    eps: float


class _Part(NamedTuple):
    """Scores of some samples.

    Attributes:
        rows: Which.
        scores: (rows, 1 + M), the positive's first.
        weights: How often each counts; None for once.
        pull: Takes the slope by the scores to that by the embeddings, (rows, d).
    """

    rows: slice
    scores: Tensor
    weights: Tensor | None
    pull: Callable[[Tensor], Tensor]


@full_precision
def contrast(
    embeddings: tuple[Tensor, Tensor],
    memories: tuple[Tensor, Tensor],
    drawn: Tensor,
    normalizers: Tensor | None,
    form: Form,
) -> Tensor:
    """The sum of both networks' estimates, each network's embeddings compared with the other's memory.

    The gradient by the embeddings is computed along with the value, so that no score is kept for the backward pass, and
    the memories may change before it.

    Args:
        embeddings: (N, d) of each network.
        memories: (n, d) of each network, taken as constant.
        drawn: (N, 1 + K) int64, rows of the memories: the positive, then the negatives. Or (N, n) bool, the rows that
            are negatives, each counted K / (their number) times; the positive is then the other network's embedding of
            the same sample, taken as constant.
        normalizers: (2,) log Z of each network's scores; None for those of these scores.
        form: The numbers.

    Returns:
        Scalar, mean over the samples; 0 for an empty batch.
    """
    if normalizers is None:
        normalizers = log_normalizers(_exponentials(embeddings, memories, drawn, form), form)
    values = []
    for which in (0, 1):
        parts = _parts(embeddings[which].detach(), embeddings[1 - which].detach(), memories[1 - which], drawn, form)
        value, gradient = _estimate(embeddings[which], parts, normalizers[which], form)
        values.append(_Known.apply(embeddings[which], value, gradient))  # type: ignore[no-untyped-call]
    return values[0] + values[1]


@full_precision
@torch.no_grad()
def exponentials(
    embeddings: tuple[Tensor, Tensor], memories: tuple[Tensor, Tensor], drawn: Tensor, form: Form
) -> Tensor:
    """What Z is made of: (3,) float64, sums of exp((score - 1) / temperature) of each network, and their number.

    Args:
        embeddings: As of :func:`contrast`, like the others.
        memories: Of each network.
        drawn: Rows.
        form: The numbers.
    """
    return _exponentials(embeddings, memories, drawn, form)


@torch.no_grad()
def _exponentials(
    embeddings: tuple[Tensor, Tensor], memories: tuple[Tensor, Tensor], drawn: Tensor, form: Form
) -> Tensor:
    sums = torch.zeros(3, dtype=torch.float64, device=drawn.device)
    for which in (0, 1):
        for part in _parts(embeddings[which], embeddings[1 - which], memories[1 - which], drawn, form):
            values = ((part.scores.double() - 1) / form.temperature).exp()
            weights = torch.ones_like(values) if part.weights is None else part.weights.double()
            sums[which] += (values * weights).sum()
            sums[2] += weights.sum() / 2
    return sums


def log_normalizers(sums: Tensor, form: Form) -> Tensor:
    """(2,) log Z = log(n * mean exp(score / temperature)) of each network, by :func:`exponentials`."""
    return (sums[:2] / sums[2]).log() + 1 / form.temperature + math.log(form.samples)


@torch.no_grad()
def _estimate(embedding: Tensor, parts: Iterator[_Part], log_z: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """One network's value and its gradient by the embeddings."""
    shift = log_z.to(embedding.dtype) + math.log(form.negatives / form.samples + form.eps)
    total, gradient = embedding.new_zeros(()), torch.zeros_like(embedding)
    for part in parts:
        logits = part.scores / form.temperature - shift  # log of v / (K/n + eps)
        logits[:, 0].neg_()
        terms, slope = F.softplus(logits), logits.sigmoid()  # of -log h, and -log(1 - h) up to a constant
        if part.weights is not None:
            terms, slope = terms * part.weights, slope * part.weights
        total += terms.sum()
        slope[:, 0].neg_()
        gradient[part.rows] = part.pull(slope / form.temperature)
    total += len(embedding) * form.negatives * math.log1p(form.eps * form.samples / form.negatives)
    return total / max(len(embedding), 1), gradient / max(len(embedding), 1)


def is_dense(rows: int, drawn: int) -> bool:
    """Whether a product with all rows of a memory takes less time than fetching those drawn for each sample."""
    return rows <= DENSE * drawn


def _parts(own: Tensor, other: Tensor, memory: Tensor, drawn: Tensor, form: Form) -> Iterator[_Part]:
    """A few samples at a time, as many as :data:`CHUNK` allows."""
    columns = drawn.size(1)
    dense = drawn.dtype == torch.bool or is_dense(len(memory), columns)
    step = max(1, CHUNK // max(len(memory) if dense else columns * memory.size(1), 1))
    for start in range(0, len(own), step):
        rows = slice(start, start + step)
        if drawn.dtype == torch.bool:
            yield _Part(rows, *_marked(own[rows], other[rows], memory, drawn[rows], form.negatives))
        else:
            yield _Part(rows, *(_by_product if dense else _by_fetching)(own[rows], memory, drawn[rows]))


def _by_product(own: Tensor, memory: Tensor, drawn: Tensor) -> tuple[Tensor, None, Callable[[Tensor], Tensor]]:
    scores = own @ memory.mT
    return scores.gather(1, drawn), None, lambda slope: scores.zero_().scatter_add_(1, drawn, slope) @ memory


def _by_fetching(own: Tensor, memory: Tensor, drawn: Tensor) -> tuple[Tensor, None, Callable[[Tensor], Tensor]]:
    rows = memory[drawn]
    return (rows @ own[:, :, None]).squeeze(2), None, lambda slope: (slope[:, None] @ rows).squeeze(1)


def _marked(
    own: Tensor, other: Tensor, memory: Tensor, marked: Tensor, negatives: int
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Also the positives, which are no rows of the memory."""
    weights = negatives / marked.sum(1, keepdim=True).clamp_min(1).to(own.dtype) * marked
    weights = torch.cat([torch.ones_like(weights[:, :1]), weights], 1)
    scores = torch.cat([(own * other).sum(1, keepdim=True), own @ memory.mT], 1)
    return scores, weights, lambda slope: slope[:, :1] * other + slope[:, 1:] @ memory


class _Known(torch.autograd.Function):
    """A value that was computed with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return slope * gradient, None, None
