"""Information flow straight from its formulas: one Python number at a time, complex for a complex step."""

import cmath
from collections.abc import Sequence

from ..naive_features import Row, dot, squares, unit

EPS = 1e-7  # of probabilities
EPS_SQUARED = 1e-6  # of squared distances


def choices(vectors: Sequence[Row], kernel: str) -> list[list[complex]]:
    """p_j|i = K_ij / sum_k K_ik over all k, for K of cosines or of Student's t with d = 1."""

    def k(a: Row, b: Row) -> complex:
        if kernel == 'cosine':
            return (dot(unit(a), unit(b)) + 1) / 2
        return 1 / (1 + cmath.sqrt(sum(squares(a, b), start=0j) + EPS_SQUARED))

    rows = [[k(a, b) for b in vectors] for a in vectors]
    return [[x / sum(row, start=0j) for x in row] for row in rows]


def jeffreys(p: Row, q: Row, eps: float = 0.0) -> complex:
    """sum_j (p_j - q_j)(log p_j - log q_j)."""
    terms = [(a - b) * (cmath.log(a + eps) - cmath.log(b + eps)) for a, b in zip(p, q, strict=True)]
    return sum(terms, start=0j)


def flow(student: Sequence[Row], teacher: Sequence[Row]) -> complex:
    """The mean over all N x N entries, summed over both kernels (arXiv 2005.00727)."""
    total = 0j
    for kernel in ('cosine', 'student'):
        rows = zip(choices(student, kernel), choices(teacher, kernel), strict=True)
        total += sum((jeffreys(p, q, EPS) for p, q in rows), start=0j)
    return total / len(student) ** 2
