"""The graphs of several teachers straight from their formulas, one Python number at a time."""

import cmath
from collections.abc import Sequence

from ..naive_features import Row, dot, unit


def softmax(row: Row, temperature: float) -> list[complex]:
    powers = [cmath.exp(x / temperature) for x in row]
    return [x / sum(powers, start=0j) for x in powers]


def total_variation(p: Row, q: Row) -> complex:
    """1/2 sum_c |p_c - q_c|."""
    gaps = [a - b for a, b in zip(p, q, strict=True)]
    return sum((gap if gap.real > 0 else -gap for gap in gaps), start=0j) / 2


def transport(p: Row, q: Row, cost: Sequence[Row], entropy: float, iterations: int) -> complex:
    """The dual value of moving p to q at that cost with that much entropy, from potentials that start at 0."""
    count = range(len(p))

    def best(weights: Row, potential: Row) -> list[complex]:
        """The least that moving to class i costs, softly: -e log sum_j w_j exp((h_j - C_ij) / e)."""
        sums = [sum(weights[j] * cmath.exp((potential[j] - cost[i][j]) / entropy) for j in count) for i in count]
        return [-entropy * cmath.log(x) for x in sums]

    f: list[complex] = [0j] * len(p)
    g: list[complex] = [0j] * len(p)
    for _ in range(iterations):
        new_f, new_g = best(q, g), best(p, f)
        f = [(old + new) / 2 for old, new in zip(f, new_f, strict=True)]
        g = [(old + new) / 2 for old, new in zip(g, new_g, strict=True)]
    return dot(p, best(q, g)) + dot(q, best(p, f))


def sinkhorn_divergence(p: Row, q: Row, cost: Sequence[Row], epsilon: float, iterations: int) -> complex:
    """OT(p, q) - OT(p, p) / 2 - OT(q, q) / 2 (arXiv 1810.08278)."""
    entropy = epsilon * max(x.real for row in cost for x in row)
    cross, own_p, own_q = (transport(a, b, cost, entropy, iterations) for a, b in ((p, q), (p, p), (q, q)))
    return cross - own_p / 2 - own_q / 2


def logits_graph(
    student: Sequence[Row],
    teachers: Sequence[Sequence[Row]],
    weights: Sequence[float],
    temperature: float,
    cost: Sequence[Row] | None = None,
    epsilon: float = 0.1,
    iterations: int = 50,
) -> complex:
    """1/N sum_n sum_m w_m EMD(p_m, p_s)."""
    total = 0j
    for weight, teacher in zip(weights, teachers, strict=True):
        for z_s, z_t in zip(student, teacher, strict=True):
            p, q = softmax(z_t, temperature), softmax(z_s, temperature)
            emd = total_variation(p, q) if cost is None else sinkhorn_divergence(p, q, cost, epsilon, iterations)
            total += weight * emd
    return total / len(student)


def compact_bilinear(a: Row, b: Row, hashes: Sequence[Sequence[int]], signs: Sequence[Row], size: int) -> list[complex]:
    """The count sketch of all products a_i b_j, at place h_1(i) + h_2(j) with the sign s_1(i) s_2(j)."""
    sketch = [0j] * size
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            sketch[(hashes[0][i] + hashes[1][j]) % size] += signs[0][i] * signs[1][j] * x * y
    return sketch


def pooled(sketch: Row) -> list[complex]:
    """sign(r) sqrt(|r|), over its length."""
    return unit([cmath.sqrt(x) if x.real > 0 else -cmath.sqrt(-x) for x in sketch])


def mmd2(xs: Sequence[Row], ys: Sequence[Row], power: int) -> complex:
    """Means of k within and across, k(x, y) = (x . y) ** power."""
    within = [sum((dot(a, b) ** power for a in z for b in z), start=0j) / len(z) ** 2 for z in (xs, ys)]
    return sum(within, start=0j) - 2 * sum((dot(x, y) ** power for x in xs for y in ys), start=0j) / len(xs) / len(ys)
