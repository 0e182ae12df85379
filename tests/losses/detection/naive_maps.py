"""CWD, PKD, FGD and MGD from their formulas, one Python number at a time, see ``naive_features``.

Boxes are drawn one after the other, and maps are resized place by place.
"""

import cmath
from collections.abc import Callable, Sequence
from math import ceil, floor

from ..naive_features import Batch, Image, Plane, Row, convolved, dot, flat, mean, size, squares


def absolute(x: complex) -> complex:
    return x if x.real >= 0 else -x


def softmax(values: Row) -> list[complex]:
    top = max(value.real for value in values)
    powers = [cmath.exp(value - top) for value in values]
    return [power / sum(powers, start=0j) for power in powers]


def resized(batch: Batch, height: int, width: int) -> Batch:
    """Bilinear: place i of n lies at (i + 1/2)·H/n − 1/2, kept within the map."""

    def weights(size: int, places: int, i: int) -> list[tuple[int, float]]:
        at = min(max((i + 0.5) * size / places - 0.5, 0.0), size - 1.0)
        low = min(floor(at), size - 1)
        return [(low, 1 - (at - low)), (min(low + 1, size - 1), at - low)]

    def resize(plane: Plane) -> Plane:
        rows, columns = len(plane), len(plane[0])
        return [
            [
                sum(
                    (a * b * plane[h][w] for h, a in weights(rows, height, i) for w, b in weights(columns, width, j)),
                    start=0j,
                )
                for j in range(width)
            ]
            for i in range(height)
        ]

    return [[resize(plane) for plane in image] for image in batch]


def channel(batch: Batch, c: int) -> list[complex]:
    """All values of a channel, in order."""
    return [x for image in batch for x in flat(image[c])]


def rescaled(batch: Batch, change: Callable[[list[complex]], tuple[complex, complex]]) -> Batch:
    """Each channel less the first number, over the second, both of all its values."""
    scales = [change(channel(batch, c)) for c in range(len(batch[0]))]
    return [
        [
            [[(x - shift) / scale for x in row] for row in plane]
            for plane, (shift, scale) in zip(image, scales, strict=True)
        ]
        for image in batch
    ]


def variance(values: list[complex], less: int) -> complex:
    centre = mean(values)
    return sum(((x - centre) ** 2 for x in values), start=0j) / (len(values) - less)


def cwd(student: Batch, teacher: Batch, temperature: float = 1.0, normalize: bool = False) -> complex:
    """T² mean_nc KL over positions (arXiv 2011.13256)."""
    student = resized(student, *size(teacher))
    if normalize:
        student, teacher = (
            rescaled(maps, lambda values: (mean(values), cmath.sqrt(variance(values, 0) + 1e-5)))
            for maps in (student, teacher)
        )
    found = []
    for s, t in zip(student, teacher, strict=True):
        for p, q in zip(s, t, strict=True):
            phi_s, phi_t = (softmax([x / temperature for x in flat(plane)]) for plane in (p, q))
            found.append(sum((b * (cmath.log(b) - cmath.log(a)) for a, b in zip(phi_s, phi_t, strict=True)), start=0j))
    return temperature**2 * mean(found)


def pkd(student: Batch, teacher: Batch, resize: str = 'student') -> complex:
    """½ mean (norm(F_s) − norm(F_t))², unbiased (arXiv 2207.02039)."""
    if resize == 'student':
        student = resized(student, *size(teacher))
    else:
        teacher = resized(teacher, *size(student))
    student, teacher = (
        rescaled(maps, lambda values: (mean(values), cmath.sqrt(variance(values, 1)))) for maps in (student, teacher)
    )
    pairs = [squares(channel(student, c), channel(teacher, c)) for c in range(len(student[0]))]
    return mean([x for pair in pairs for x in pair]) / 2


def masks(
    boxes: Sequence[Sequence[float]], frame: tuple[float, float], height: int, width: int
) -> tuple[list[list[float]], list[list[float]]]:
    """M_fg and M_bg of an image, box after box (FGD's code)."""
    foreground = [[0.0] * width for _ in range(height)]
    for x1, y1, x2, y2 in boxes:
        left, right = floor(x1 / frame[1] * width), ceil(x2 / frame[1] * width)
        top, bottom = floor(y1 / frame[0] * height), ceil(y2 / frame[0] * height)
        weight = 1 / (right + 1 - left) / (bottom + 1 - top)
        for y in range(top, min(bottom + 1, height)):
            for x in range(left, min(right + 1, width)):
                foreground[y][x] = max(foreground[y][x], weight)
    count = sum(value == 0 for row in foreground for value in row)
    return foreground, [[(value == 0) / max(count, 1) for value in row] for row in foreground]


def attention(image: Image, temperature: float) -> tuple[list[complex], list[complex]]:
    """S of positions, A of channels (arXiv 2111.11837)."""
    planes = [[absolute(x) for x in flat(plane)] for plane in image]
    places = len(planes[0])
    by_place = softmax([mean([plane[i] for plane in planes]) / temperature for i in range(places)])
    by_channel = softmax([mean(plane) / temperature for plane in planes])
    return [places * x for x in by_place], [len(planes) * x for x in by_channel]


def fgd(
    student: Batch,
    teacher: Batch,
    foreground: Sequence[Sequence[Sequence[float]]],
    background: Sequence[Sequence[Sequence[float]]],
    temperature: float,
    alpha: float,
    beta: float,
    gamma: float,
) -> complex:
    """The focal part: α L_fg + β L_bg + γ L_at (arXiv 2111.11837)."""
    total = 0j
    for s, t, fg, bg in zip(student, teacher, foreground, background, strict=True):
        (s_places, s_channels), (t_places, t_channels) = attention(s, temperature), attention(t, temperature)
        for c, (p, q) in enumerate(zip(s, t, strict=True)):
            for i, (x, y) in enumerate(zip(flat(p), flat(q), strict=True)):
                mask = alpha * flat(fg)[i] + beta * flat(bg)[i]
                total += mask * t_places[i].real * t_channels[c].real * (y - x) ** 2
        gaps = [a - b for a, b in zip([*s_places, *s_channels], [*t_places, *t_channels], strict=True)]
        total += gamma * sum(map(absolute, gaps), start=0j)
    return total / len(student)


def context(
    image: Image, key: Row, weights: Sequence[tuple[Sequence[Row], Row]], norm: tuple[Row, Row]
) -> list[complex]:
    """What FGD's GcBlock adds to each channel."""
    places = list(zip(*map(flat, image), strict=True))
    attended = softmax([dot(key, place) for place in places])
    seen = [dot(attended, flat(plane)) for plane in image]
    (first, first_bias), (last, last_bias) = weights
    hidden = [dot(row, seen) + bias for row, bias in zip(first, first_bias, strict=True)]
    centre, spread = mean(hidden), cmath.sqrt(variance(hidden, 0) + 1e-5)
    normed = [(x - centre) / spread * w + b for x, w, b in zip(hidden, *norm, strict=True)]
    active = [x if x.real > 0 else 0j for x in normed]
    return [dot(row, active) + bias for row, bias in zip(last, last_bias, strict=True)]


def mgd(student: Batch, teacher: Batch, layers: Sequence[tuple[Batch, Row]]) -> complex:
    """1/N Σ (F_t − G(F_s))² (arXiv 2205.01529), G being two convolutions with a ReLU between."""
    (first, last), total = layers, 0j
    for s, t in zip(student, teacher, strict=True):
        hidden = [
            [[x if x.real > 0 else 0j for x in row] for row in plane] for plane in convolved([s], *first, padding=1)[0]
        ]
        for p, q in zip(convolved([hidden], *last, padding=1)[0], t, strict=True):
            total += sum(squares(flat(p), flat(q)), start=0j)
    return total / len(student)
