"""MHGD straight from its formulas, in loops, which autograd differentiates."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .naive_layers import aligned

Rows = list[Tensor]


def vectors(student: Tensor, teacher: Tensor) -> tuple[Rows, Rows]:
    """Of each image of two maps: the student's singular vector next to the teacher's first, and this."""
    pairs = [aligned(s, t, 1) for s, t in zip(student, teacher, strict=True)]
    return [s[0] for s, _ in pairs], [t[0] for _, t in pairs]


def normed(rows: Rows, norm: Any, stored: bool) -> Rows:
    """Each entry by mean and variance of the batch, or by those that are stored."""
    columns = []
    for c in range(len(rows[0])):
        values = [row[c] for row in rows]
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        if stored:
            mean, variance = norm.running_mean[c], norm.running_var[c]
        columns.append([(v - mean) / (variance + norm.eps) ** 0.5 * norm.weight[c] + norm.bias[c] for v in values])
    return [torch.stack(list(row)) for row in zip(*columns, strict=True)]


def projected(rows: Rows, part: Any, stored: bool) -> Rows:
    return normed([torch.stack([w @ row for w in part.linear.weight]) for row in rows], part.norm, stored)


def scores(front: Rows, back: Rows, heads: Any, stored: bool) -> list[list[list[Tensor]]]:
    """S[a][i][j] = theta_a(back_i) . phi_a(front_j)."""
    width = (len(front[0]) + len(back[0])) // 2
    query, key = projected(back, heads.theta, stored), projected(front, heads.phi, stored)
    own = [slice(a * width, (a + 1) * width) for a in range(heads.heads)]
    return [[[(q[part] * k[part]).sum() for k in key] for q in query] for part in own]


def softmax(row: Sequence[Tensor]) -> list[Tensor]:
    total = sum(torch.exp(x) for x in row)
    return [torch.exp(x) / total for x in row]


def heads_loss(teacher: Sequence[Tensor], pairs: Any, stored: bool = False) -> Tensor:
    """sum over pairs of mean_b (1 − cos(FC(concat_a(softmax(S_a) · ReLU(BN(FC(front)))))_b, back_b))."""
    layers = [vectors(x, x)[1] for x in teacher]
    total = torch.zeros((), dtype=torch.float64)
    for heads, front, back in zip(pairs, layers[:-1], layers[1:], strict=True):
        values = [row.clamp(min=0) for row in projected(front, heads.value, stored)]
        graphs = scores(front, back, heads, stored)
        for i, target in enumerate(back):
            attended = []
            for graph in graphs:
                shares = zip(softmax(graph[i]), values, strict=True)
                attended.append(torch.stack([p * v for p, v in shares]).sum(0))
            estimate = heads.estimator.weight @ torch.cat(attended) + heads.estimator.bias
            cosine = (estimate @ target) / (estimate @ estimate) ** 0.5 / (target @ target) ** 0.5
            total = total + (1 - cosine) / len(back)
    return total


def divergence(own: Sequence[Sequence[Sequence[Tensor]]], other: Sequence[Sequence[Sequence[Tensor]]]) -> Tensor:
    """sum_a sum_i KL(softmax(tanh own[a][i]) ‖ softmax(tanh other[a][i])), as the authors have it."""
    total = torch.zeros((), dtype=torch.float64)
    for a in range(len(own)):
        for i in range(len(own[a])):
            p, q = (softmax([torch.tanh(x) for x in graph[a][i]]) for graph in (own, other))
            total = total + sum((x * torch.log(x / y) for x, y in zip(p, q, strict=True)), start=torch.tensor(0.0))
    return total


def mhgd(student: Sequence[Tensor], teacher: Sequence[Tensor], pairs: Any) -> Tensor:
    """The authors' sum over the pairs of layers, heads and samples."""
    layers = [vectors(s, t) for s, t in zip(student, teacher, strict=True)]
    total = torch.zeros((), dtype=torch.float64)
    for heads, front, back in zip(pairs, layers[:-1], layers[1:], strict=True):
        graphs = [scores(front[side], back[side], heads, stored=True) for side in (0, 1)]
        total = total + divergence(*graphs)
    return total


#: KL of softmax(1, −1) and softmax(−1, 1): the difference of the probabilities, tanh(1), times 2.
FARTHEST_OF_TWO = 2 * math.tanh(1)
