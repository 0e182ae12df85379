"""The losses that relate samples straight from their formulas: one Python number at a time.

As in ``naive_features``, numbers are complex, and x.real is x detached. A batch is a nested list ``[n][d]``, or
``[n][c][h][w]`` where it is maps.
"""

import cmath
from itertools import pairwise
from math import exp, factorial
from typing import Any

from ..naive_features import Batch, Row, dot, flat, mean, squares, unit

Vectors = list[list[complex]]


def averaged(batch: Batch) -> Vectors:
    """A map's channels, each averaged over its places."""
    return [[mean(flat(plane)) for plane in image] for image in batch]


def flattened(batch: Batch) -> Vectors:
    return [[x for plane in image for x in flat(plane)] for image in batch]


def cosines(batch: Vectors) -> Vectors:
    return [[dot(a, b) for b in map(unit, batch)] for a in map(unit, batch)]


def choices(batch: Vectors) -> Vectors:
    """p_j|i = K(x_i, x_j) / sum_k K(x_i, x_k), with K = (cos + 1) / 2."""
    kernels = [[(cosine + 1) / 2 for cosine in row] for row in cosines(batch)]
    return [[k / sum(row, start=0j) for k in row] for row in kernels]


def pkt(student: Vectors, teacher: Vectors) -> complex:
    """mean_ij p_t log((p_t + eps) / (p_s + eps)) (arXiv 1803.10837, the authors' code)."""
    eps = 1e-7
    rows = zip(choices(student), choices(teacher), strict=True)
    return mean([t * cmath.log((t + eps) / (s + eps)) for row in rows for s, t in zip(*row, strict=True)])


def similarities(batch: Vectors) -> Vectors:
    """The rows of Q Q^T, each over its length."""
    return [unit([dot(a, b) for b in batch]) for a in batch]


def distance(a: Vectors, b: Vectors) -> complex:
    """|A - B|_F^2 over the number of entries."""
    return mean([x for rows in zip(a, b, strict=True) for x in squares(*rows)])


def sp(student: Vectors, teacher: Vectors) -> complex:
    """|G_t - G_s|_F^2 / N^2, rows of G of length 1 (arXiv 1907.09682)."""
    return distance(similarities(student), similarities(teacher))


def correlations(batch: Vectors, gamma: float, order: int) -> Vectors:
    """sum_p exp(-2 gamma) (2 gamma)^p / p! cos^p."""
    return [
        [
            sum((exp(-2 * gamma) * (2 * gamma) ** p / factorial(p) * cosine**p for p in range(order + 1)), start=0j)
            for cosine in row
        ]
        for row in cosines(batch)
    ]


def cc(student: Vectors, teacher: Vectors, gamma: float, order: int) -> complex:
    """|C_s - C_t|_F^2 / N^2 (arXiv 1904.01802)."""
    return distance(correlations(student, gamma, order), correlations(teacher, gamma, order))


def embedded(batch: Vectors, weight: Vectors, bias: Row) -> Vectors:
    return [[dot(row, x) + b for row, b in zip(weight, bias, strict=True)] for x in batch]


def cc_embedded(student: Vectors, teacher: Vectors) -> complex:
    """mean_i sum_k |d[i, k]| |d[i + 1, k]|, d the difference of two embeddings (RepDistiller)."""

    def size(x: complex) -> complex:
        return x if x.real >= 0 else -x

    wrong = [[size(s - t) for s, t in zip(*rows, strict=True)] for rows in zip(student, teacher, strict=True)]
    return mean([dot(a, b) for a, b in pairwise(wrong)])


def lp(student: Vectors, teacher: Vectors, k: int, sigma2: Any) -> complex:
    """1 / (N k) sum_ij exp(-|t_i - t_j|^2 / sigma2) |s_i - s_j|^2, j the k nearest to i (arXiv 1812.06597)."""
    count = len(teacher)
    far = [[sum(squares(a, b), start=0j).real for b in teacher] for a in teacher]
    if sigma2 == 'mean':
        sigma2 = sum(map(sum, far)) / (count * (count - 1))
    k = min(k, count - 1)
    total = 0j
    for i in range(count):
        others = sorted((j for j in range(count) if j != i), key=lambda j, i=i: far[i][j])  # type: ignore[misc]
        for j in others[:k]:
            total += exp(-far[i][j] / sigma2) * sum(squares(student[i], student[j]), start=0j)
    return total / (count * k)
