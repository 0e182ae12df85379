"""Losses that are trained in stages, straight from their formulas: one Python number at a time, as `naive_features`."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..naive_features import Batch, Image, convolved, deconvolved, each_plane, flat, mean, to_common_size, unit


def leaky(x: Batch) -> Batch:
    return each_plane(lambda plane: [[v if v.real > 0 else 0.1 * v for v in row] for row in plane], x)


def size_of(x: complex) -> complex:
    return x if x.real >= 0 else -x


def three(x: Batch, values: Mapping[str, Any], name: str, up: bool = False) -> Batch:
    """Three 3 × 3 (transposed) convolutions, 0, 2 and 4 of a sequence in a state dict, each with a LeakyReLU."""
    for number in (0, 2, 4):
        weight, bias = values[f'{name}.{number}.weight'], values[f'{name}.{number}.bias']
        x = leaky(deconvolved(x, weight, bias, 1, 1) if up else convolved(x, weight, bias, 1, 1))
    return x


def paraphraser(teacher: Batch, values: Mapping[str, Any], distance: str) -> complex:
    """mean (P(t) − t)², or mean |P(t) − t| (arXiv 1802.04977)."""
    rebuilt = three(three(teacher, values, 'encoder'), values, 'decoder', up=True)
    pairs = [
        (a, b)
        for image, other in zip(rebuilt, teacher, strict=True)
        for plane, wanted in zip(image, other, strict=True)
        for a, b in zip(flat(plane), flat(wanted), strict=True)
    ]
    return mean([(a - b) ** 2 if distance == 'l2' else size_of(a - b) for a, b in pairs])


def ft(student: Batch, teacher: Batch, factor: str) -> complex:
    """mean_n mean_d |u_s / ‖u_s‖ − u_t / ‖u_t‖| (arXiv 1802.04977)."""

    def direction(image: Image) -> list[complex]:
        planes = [flat(plane) for plane in image]
        if factor == 'vector':
            return unit([v for plane in planes for v in plane])
        return unit([mean([plane[i] ** 2 for plane in planes]) for i in range(len(planes[0]))])

    student, teacher = to_common_size(student, teacher)
    pairs = [(direction(s), direction(t)) for s, t in zip(student, teacher, strict=True)]
    return mean([mean([size_of(a - b) for a, b in zip(s, t, strict=True)]) for s, t in pairs])


def ab(student: Batch, teacher: Batch, margin: float) -> complex:
    """mean_n sum of (s + μ)² 1[s > −μ, t ≤ 0] + (s − μ)² 1[s ≤ μ, t > 0] (arXiv 1811.03233)."""
    student, teacher = to_common_size(student, teacher)

    def of(s: complex, t: complex) -> complex:
        if t.real <= 0:
            return (s + margin) ** 2 if s.real > -margin else 0j
        return (s - margin) ** 2 if s.real <= margin else 0j

    return mean(
        [
            sum(
                (
                    of(a, b)
                    for plane, wanted in zip(image, other, strict=True)
                    for a, b in zip(flat(plane), flat(wanted), strict=True)
                ),
                start=0j,
            )
            for image, other in zip(student, teacher, strict=True)
        ]
    )


def weighted(values: Sequence[complex]) -> complex:
    """sum_i 2^−(n − i) L_i, i = 1 … n."""
    return sum((value * 2.0 ** -(len(values) - i) for i, value in enumerate(values, start=1)), start=0j)
