"""The losses straight from their formulas: one Python number at a time, nothing of torch.

Written from the papers' equations before reading the implementations, and good for moderate
logits only. Numbers are complex, so that ``gradient`` can differentiate by a complex step, which
is exact to rounding: f(z + ih) = f(z) + ih·f'(z), and nothing cancels in the imaginary part.
"""

import cmath
from collections.abc import Callable, Sequence

Row = Sequence[complex]
Batch = Sequence[Row]


def softmax(logits: Row, temperature: float) -> list[complex]:
    """p_c = exp(z_c / T) / sum_j exp(z_j / T)."""
    exponentials = [cmath.exp(z / temperature) for z in logits]
    return [e / sum(exponentials) for e in exponentials]


def divergence(p: Row, q: Row) -> complex:
    """KL(p ‖ q) = sum_c p_c (log p_c − log q_c), in nats."""
    return sum((a * (cmath.log(a) - cmath.log(b)) for a, b in zip(p, q, strict=True)), start=0j)


def mean(values: Row) -> complex:
    return sum(values, start=0j) / len(values)


def kd(student: Batch, teacher: Batch, temperature: float) -> complex:
    """T² · mean_n KL(teacher ‖ student)."""
    return temperature**2 * mean(
        [divergence(softmax(t, temperature), softmax(s, temperature)) for s, t in zip(student, teacher, strict=True)]
    )


def target_against_rest(logits: Row, label: int, temperature: float) -> list[complex]:
    """[p_t, p_{\\t}]: the target class against all others together."""
    p = softmax(logits, temperature)
    return [p[label], sum((p[c] for c in range(len(p)) if c != label), start=0j)]


def inside_rest(logits: Row, label: int, temperature: float) -> list[complex]:
    """phat: the softmax over all classes but the target."""
    return softmax([z for c, z in enumerate(logits) if c != label], temperature)


def tckd(student: Row, teacher: Row, label: int, temperature: float) -> complex:
    """Target-class part of one sample, without T²."""
    return divergence(
        target_against_rest(teacher, label, temperature), target_against_rest(student, label, temperature)
    )


def nckd(student: Row, teacher: Row, label: int, temperature: float) -> complex:
    """Non-target-class part of one sample, without T²."""
    return divergence(inside_rest(teacher, label, temperature), inside_rest(student, label, temperature))


def dkd(
    student: Batch,
    teacher: Batch,
    labels: Sequence[int],
    alpha: float,
    beta: float,
    temperature: float,
) -> complex:
    """T² · mean_n (alpha · TCKD + beta · NCKD)."""
    return temperature**2 * mean(
        [
            alpha * tckd(s, t, y, temperature) + beta * nckd(s, t, y, temperature)
            for s, t, y in zip(student, teacher, labels, strict=True)
        ]
    )


def correlation(a: Row, b: Row) -> complex:
    """Pearson's: sum of products over the root of the sums of squares, of what is less its mean."""
    a, b = ([x - mean(row) for x in row] for row in (a, b))
    products, squares, others = (
        sum((x * y for x, y in zip(*pair, strict=True)), start=0j) for pair in ((a, b), (a, a), (b, b))
    )
    return products / cmath.sqrt(squares * others)


def dist(student: Batch, teacher: Batch, beta: float, gamma: float, temperature: float) -> complex:
    """T² · (beta · mean_n (1 − rho of row n) + gamma · mean_c (1 − rho of column c)) of softmaxes."""
    rows = [[softmax(row, temperature) for row in batch] for batch in (student, teacher)]
    columns = [list(zip(*side, strict=True)) for side in rows]
    inter, intra = (mean([1 - correlation(s, t) for s, t in zip(*sides, strict=True)]) for sides in (rows, columns))
    return temperature**2 * (beta * inter + gamma * intra)


def z_scores(logits: Row) -> list[complex]:
    """(z_c − mean) / (std + 1e-7), where the variance is divided by C − 1."""
    centred = [z - mean(logits) for z in logits]
    deviation = cmath.sqrt(sum((z * z for z in centred), start=0j) / (len(logits) - 1))
    return [z / (deviation + 1e-7) for z in centred]


def gradient(function: Callable[[Batch], complex], student: Batch, step: float = 1e-30) -> list[list[float]]:
    """d function(student) / d student[n][c], by a complex step in one logit at a time."""

    def stepped(n: int, c: int) -> list[list[complex]]:
        batch = [list(row) for row in student]
        batch[n][c] += 1j * step
        return batch

    return [[(function(stepped(n, c)) / step).imag for c in range(len(row))] for n, row in enumerate(student)]
