"""What is compared of dense heads, one Python number at a time; boxes and anchors in pairs of loops."""

import cmath
from collections.abc import Sequence
from itertools import product
from math import hypot
from statistics import fmean, stdev

from ..naive_features import Batch, Row
from .naive_maps import absolute, softmax

Box = Sequence[float]


def sigmoid(z: complex) -> complex:
    return 1 / (1 + cmath.exp(-z))


def places(levels: Sequence[Batch], priors: int) -> list[list[complex]]:
    """The values of each position: level by level, then by image, row, column and anchor."""
    found = []
    for maps in levels:
        count = len(maps[0]) // priors
        for image, h, w, a in product(maps, range(len(maps[0][0])), range(len(maps[0][0][0])), range(priors)):
            found.append([image[a * count + k][h][w] for k in range(count)])
    return found


def chosen(kind: str, teacher: Sequence[Row], labels: Sequence[int], classes: int, threshold: float) -> list[bool]:
    if kind == 'confident':
        return [max(sigmoid(z).real for z in row) >= threshold for row in teacher]
    return [kind == 'all' or 0 <= label < classes for label in labels]


def scores(
    student: Sequence[Row],
    teacher: Sequence[Row],
    labels: Sequence[int],
    kind: tuple[str, float],
    positions: str,
    normalizer: str,
    threshold: float,
) -> complex:
    """T² KL of sigmoids, or |q_t − q_s|^β BCE, summed over positions and classes, over a number of positions."""
    classes, total = len(student[0]), 0j
    count = sum(chosen({'positives': 'positive'}.get(normalizer, normalizer), teacher, labels, classes, threshold))
    for s_row, t_row, counts in zip(
        student, teacher, chosen(positions, teacher, labels, classes, threshold), strict=True
    ):
        for s, t in zip(s_row, t_row, strict=True):
            if counts and kind[0] == 'kd':
                q, p = sigmoid(t / kind[1]), sigmoid(s / kind[1])
                total += kind[1] ** 2 * (q * cmath.log(q / p) + (1 - q) * cmath.log((1 - q) / (1 - p)))
            elif counts:
                q, p = sigmoid(t), sigmoid(s)
                entropy = -q * cmath.log(p) - (1 - q) * cmath.log(1 - p)
                total += absolute(q - p) ** kind[1] * entropy
    return total / max(count, 1)


def ld(student: Sequence[Row], teacher: Sequence[Row], weights: Row, temperature: float) -> complex:
    """¼ Σ w Σ_sides T²/bins KL (arXiv 2102.12252's code)."""
    total = 0j
    for s_row, t_row, weight in zip(student, teacher, weights, strict=True):
        bins = len(s_row) // 4
        for side in range(4):
            p, q = (softmax([z / temperature for z in row[side * bins : side * bins + bins]]) for row in (s_row, t_row))
            kl = sum((b * (cmath.log(b) - cmath.log(a)) for a, b in zip(p, q, strict=True)), start=0j)
            total += weight * temperature**2 / bins * kl / 4
    return total


def iou_and_diou(a: Box, b: Box) -> tuple[float, float]:
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    iou = across / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - across)
    apart = hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
    whole = hypot(max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1]))
    return iou, iou - apart**2 / whole**2


def valuable(anchors: Sequence[Sequence[Box]], boxes: Sequence[Box]) -> list[float]:
    """Of each anchor, its largest IoU with the boxes g for which thr_g/4 ≤ DIoU < thr_g."""
    flat = [anchor for level in anchors for anchor in level]
    weights = [0.0] * len(flat)
    for box in boxes:
        candidates = []
        for level in anchors:

            def distance(anchor: Box, box: Box = box) -> float:
                return hypot(
                    (anchor[0] + anchor[2] - box[0] - box[2]) / 2, (anchor[1] + anchor[3] - box[1] - box[3]) / 2
                )

            candidates += [iou_and_diou(anchor, box)[0] for anchor in sorted(level, key=distance)[:9]]
        threshold = fmean(candidates) + stdev(candidates)
        for number, anchor in enumerate(flat):
            iou, diou = iou_and_diou(anchor, box)
            if threshold / 4 <= diou < threshold:
                weights[number] = max(weights[number], iou)
    return weights
