"""RKD and IRG straight from their formulas: one Python number at a time, as ``naive_features`` does it."""

import cmath

from ..naive_features import Row, mean, squares, unit

Vectors = list[list[complex]]


def squared(a: Row, b: Row) -> complex:
    return sum(squares(a, b), start=0j)


def root(x: complex) -> complex:
    return cmath.sqrt(x) if x.real > 1e-24 else 0j


def huber(x: complex) -> complex:
    """x²/2 up to 1, |x| − ½ beyond."""
    return x * x / 2 if abs(x.real) <= 1 else (x if x.real > 0 else -x) - 0.5


def relative_distances(f: Vectors) -> list[Row]:
    """‖f_i − f_j‖ / mu, with mu the mean of those above 0."""
    distances = [[root(squared(a, b)) for b in f] for a in f]
    positive = [d for row in distances for d in row if d.real > 0]
    mu = mean(positive) if positive else 1
    return [[d / mu for d in row] for row in distances]


def rkd_distance(student: Vectors, teacher: Vectors) -> complex:
    """mean_ij h(psi_ij^s − psi_ij^t) (arXiv 1904.05068)."""
    pairs = zip(relative_distances(student), relative_distances(teacher), strict=True)
    return mean([huber(s - t) for rows in pairs for s, t in zip(*rows, strict=True)])


def cosine(f: Vectors, i: int, j: int, k: int) -> complex:
    """⟨e_ij, e_ik⟩ with e_ij = (f_j − f_i) / ‖f_j − f_i‖."""
    e_ij, e_ik = (unit([x - y for x, y in zip(f[n], f[i], strict=True)]) for n in (j, k))
    return sum((x * y for x, y in zip(e_ij, e_ik, strict=True)), start=0j)


def rkd_angle(student: Vectors, teacher: Vectors) -> complex:
    """mean_ijk h(cos_ijk^s − cos_ijk^t)."""
    n = range(len(student))
    return mean([huber(cosine(student, i, j, k) - cosine(teacher, i, j, k)) for i in n for j in n for k in n])


def rkd(student: Vectors, teacher: Vectors, distance: float, angle: float, normalize: bool = False) -> complex:
    if normalize:
        student, teacher = ([unit(row) for row in side] for side in (student, teacher))
    return distance * rkd_distance(student, teacher) + angle * rkd_angle(student, teacher)


def over_largest(values: Row, constant_max: bool) -> list[complex]:
    largest = max(values, key=lambda value: value.real)
    divisor = largest.real if constant_max else largest
    return [value / divisor if largest.real > 0 else 0j for value in values]


def error(a: Row, b: Row, n: int, form: str) -> complex:
    """Sum of squares over 2 N, or their mean."""
    total = squared(a, b)
    return total / (2 * n) if form == 'caffe' else total / len(a)


def irg(student: Vectors, teacher: Vectors, vertex_weight: float, form: str, constant_max: bool = False) -> complex:
    """Of E_ij = ‖x_i − x_j‖² / max, and of the vectors (CVPR 2019)."""
    edges = [over_largest([squared(a, b) for a in x for b in x], constant_max) for x in (student, teacher)]
    total = error(edges[0], edges[1], len(student), form)
    if vertex_weight:
        flat = [[x for row in side for x in row] for side in (student, teacher)]
        total += vertex_weight * error(flat[0], flat[1], len(student), form)
    return total


def irg_transform(student: list[Vectors], teacher: list[Vectors], form: str, constant_max: bool = False) -> complex:
    """Of T_i = ‖x_i^first − x_i^last‖² / max, summed over pairs of layers."""
    total = 0j
    for pair in range(0, len(student), 2):
        moves = []
        for side in (student, teacher):
            first, last = side[pair], side[pair + 1]
            moves.append(over_largest([squared(a, b) for a, b in zip(first, last, strict=True)], constant_max))
        total += error(moves[0], moves[1], len(student[pair]), form)
    return total
