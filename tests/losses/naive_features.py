"""The losses of feature maps straight from their formulas: one Python number at a time.

Written from the papers' equations before reading the implementations, as ``naive`` is. Numbers are
complex for ``gradient`` and ``slope``, which differentiate by a complex step; so ``x.real`` is x
detached. A batch is a nested list ``[n][c][h][w]``, a vector a map of one place.
"""

import cmath
from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor
from typing import Any

import torch
from torch import Tensor

Row = Sequence[complex]
Plane = Sequence[Row]
Image = Sequence[Plane]
Batch = Sequence[Image]

STEP = 1e-30


def mean(values: Row) -> complex:
    return sum(values, start=0j) / len(values)


def dot(a: Row, b: Row) -> complex:
    return sum((x * y for x, y in zip(a, b, strict=True)), start=0j)


def unit(vector: Row) -> list[complex]:
    """The vector over its length; a vector of nothing stays one."""
    length = cmath.sqrt(dot(vector, vector))
    return [x / length if length.real > 1e-12 else 0j for x in vector]


def flat(plane: Plane) -> list[complex]:
    return [x for row in plane for x in row]


def squares(a: Row, b: Row) -> list[complex]:
    return [(x - y) ** 2 for x, y in zip(a, b, strict=True)]


def size(batch: Batch) -> tuple[int, int]:
    return len(batch[0][0]), len(batch[0][0][0])


def each_plane(change: Callable[[Plane], Plane], batch: Batch) -> Batch:
    return [[change(plane) for plane in image] for image in batch]


def pooled(batch: Batch, height: int, width: int) -> Batch:
    """Adaptive average pooling: place i of n is the mean over floor(i·H/n) .. ceil((i + 1)·H/n)."""

    def bins(size: int, places: int) -> list[range]:
        return [range(floor(i * size / places), ceil((i + 1) * size / places)) for i in range(places)]

    def pool(plane: Plane) -> Plane:
        rows, columns = bins(len(plane), height), bins(len(plane[0]), width)
        return [[mean([plane[h][w] for h in hs for w in ws]) for ws in columns] for hs in rows]

    return each_plane(pool, batch)


def to_common_size(student: Batch, teacher: Batch) -> tuple[Batch, Batch]:
    height, width = (min(pair) for pair in zip(size(student), size(teacher), strict=True))
    return pooled(student, height, width), pooled(teacher, height, width)


def nst(student: Batch, teacher: Batch, kernel: str, variance: str | float) -> complex:
    """mean_n MMD²: k within the student and within the teacher, less twice k across (arXiv 1707.01219)."""
    student, teacher = to_common_size(student, teacher)
    sides = [([unit(flat(y)) for y in s], [unit(flat(x)) for x in t]) for s, t in zip(student, teacher, strict=True)]
    across = [mean([sum(squares(x, y), start=0j) for y in ys for x in xs]).real for ys, xs in sides]

    def mmd(ys: list[list[complex]], xs: list[list[complex]], sigma2: float) -> complex:
        def k(a: Row, b: Row) -> complex:
            if kernel == 'gaussian':
                return cmath.exp(-sum(squares(a, b), start=0j) / (2 * sigma2))
            return {'linear': dot(a, b), 'polynomial': dot(a, b) ** 2}[kernel]

        return (
            sum((k(x, x2) for x in xs for x2 in xs), start=0j) / len(xs) ** 2
            + sum((k(y, y2) for y in ys for y2 in ys), start=0j) / len(ys) ** 2
            - 2 * sum((k(x, y) for x in xs for y in ys), start=0j) / (len(xs) * len(ys))
        )

    sigma2 = {'image': across, 'batch': [mean(across).real] * len(across)}.get(str(variance))
    return mean([mmd(ys, xs, sigma2[n] if sigma2 else float(variance)) for n, (ys, xs) in enumerate(sides)])


def attention(image: Image, p: float) -> list[complex]:
    """q: sum_c |F_c|^p at every place, over its length."""

    def size_of(x: complex) -> complex:
        return x if x.real >= 0 else -x

    planes = [flat(plane) for plane in image]
    return unit([sum((size_of(plane[i]) ** p for plane in planes), start=0j) for i in range(len(planes[0]))])


def at(student: Batch, teacher: Batch, p: float, squared: bool) -> complex:
    """mean_n of mean_hw (q_s − q_t)², or of ‖q_s − q_t‖₂ / 2 (arXiv 1612.03928)."""
    student, teacher = to_common_size(student, teacher)
    pairs = [squares(attention(s, p), attention(t, p)) for s, t in zip(student, teacher, strict=True)]
    return mean([mean(pair) if squared else cmath.sqrt(sum(pair, start=0j)) / 2 for pair in pairs])


def mse(a: Batch, b: Batch) -> complex:
    return mean(squares(*([x for image in batch for plane in image for x in flat(plane)] for batch in (a, b))))


def fitnet(student: Batch, teacher: Batch) -> complex:
    return mse(*to_common_size(student, teacher))


def hcl(a: Batch, b: Batch) -> complex:
    """(MSE + sum_k w_k MSE of the maps pooled to l × l) / (1 + sum_k w_k) (arXiv 2104.09044)."""
    total, weights, weight = mse(a, b), 1.0, 1.0
    for level in (4, 2, 1):
        if level < size(a)[0]:
            weight /= 2
            weights += weight
            total += weight * mse(pooled(a, level, level), pooled(b, level, level))
    return total / weights


def convolved(x: Batch, weight: Batch, bias: Row | None = None, stride: int = 1, padding: int = 0) -> Batch:
    """out[o, h, w] = b[o] + sum_{c, i, j} W[o, c, i, j] · x[c, h·stride + i − padding, w·stride + j − padding]."""
    (height, width), (kernel_h, kernel_w) = size(x), size(weight)
    rows, columns = ((n + 2 * padding - k) // stride + 1 for n, k in ((height, kernel_h), (width, kernel_w)))

    def place(image: Image, o: int, h: int, w: int) -> complex:
        total = complex(bias[o]) if bias is not None else 0j
        for c, plane in enumerate(image):
            for i in range(max(0, padding - h * stride), min(kernel_h, height + padding - h * stride)):
                for j in range(max(0, padding - w * stride), min(kernel_w, width + padding - w * stride)):
                    total += weight[o][c][i][j] * plane[h * stride + i - padding][w * stride + j - padding]
        return total

    return [
        [[[place(image, o, h, w) for w in range(columns)] for h in range(rows)] for o in range(len(weight))]
        for image in x
    ]


def deconvolved(x: Batch, weight: Batch, bias: Row | None = None, stride: int = 2, padding: int = 1) -> Batch:
    """Every x[c, h, w] adds x · W[c, o, i, j] to out[o, h·stride + i − padding, w·stride + j − padding]."""
    (height, width), (kernel_h, kernel_w) = size(x), size(weight)
    rows, columns = ((n - 1) * stride - 2 * padding + k for n, k in ((height, kernel_h), (width, kernel_w)))
    out = []
    for image in x:
        planes = [[[bias[o] if bias is not None else 0j] * columns for _ in range(rows)] for o in range(len(weight[0]))]
        for c, plane in enumerate(image):
            for h, w in ((h, w) for h in range(height) for w in range(width)):
                for i, j in ((i, j) for i in range(kernel_h) for j in range(kernel_w)):
                    row, column = h * stride + i - padding, w * stride + j - padding
                    if 0 <= row < rows and 0 <= column < columns:
                        for o in range(len(planes)):
                            planes[o][row][column] += plane[h][w] * weight[c][o][i][j]
        out.append(planes)
    return out


def normalised(x: Batch, weight: Row, bias: Row, running: tuple[Row, Row] | None = None) -> Batch:
    """Batch normalisation: by the batch's own mean and biased variance, or by running ones."""
    out: list[list[Plane]] = [[] for _ in x]
    for c in range(len(x[0])):
        values = [value for image in x for value in flat(image[c])]
        centre = mean(values) if running is None else running[0][c]
        spread = mean([(value - centre) ** 2 for value in values]) if running is None else running[1][c]
        scale = weight[c] / cmath.sqrt(spread + 1e-5)
        for image, planes in zip(x, out, strict=True):
            planes.append([[(value - centre) * scale + bias[c] for value in row] for row in image[c]])
    return out


def rectified(x: Batch) -> Batch:
    return each_plane(lambda plane: [[value if value.real > 0 else 0j for value in row] for row in plane], x)


def nearest(x: Batch, height: int, width: int) -> Batch:
    """Place i of n takes its value from place floor(i · size / n)."""
    rows, columns = ([i * size // n for i in range(n)] for size, n in zip(size(x), (height, width), strict=True))
    return each_plane(lambda plane: [[plane[h][w] for w in columns] for h in rows], x)


def gated(x: Batch, residual: Batch, weight: Batch, bias: Row) -> Batch:
    """x · z_0 + residual · z_1, with z the sigmoid of a 1 × 1 convolution of both."""
    both = [[*a, *b] for a, b in zip(x, residual, strict=True)]
    gates = each_plane(
        lambda plane: [[1 / (1 + cmath.exp(-value)) for value in row] for row in plane], convolved(both, weight, bias)
    )
    return [
        [
            [
                [a * z0 + b * z1 for a, b, z0, z1 in zip(*rows, strict=True)]
                for rows in zip(plane_x, plane_r, *z, strict=True)
            ]
            for plane_x, plane_r in zip(image_x, image_r, strict=True)
        ]
        for image_x, image_r, z in zip(x, residual, gates, strict=True)
    ]


def reviewkd(values: Mapping[str, Any], teacher: Sequence[Batch], training: bool) -> complex:
    """Sum over stages of HCL(ABF(student stage and all deeper ones), teacher stage) (arXiv 2104.09044).

    ``values`` holds the student's maps as ``student.<stage>``, and the state dict of the loss.
    """

    def norm(x: Batch, name: str) -> Batch:
        running = None if training else (values[f'{name}.running_mean'], values[f'{name}.running_var'])
        return normalised(x, values[f'{name}.weight'], values[f'{name}.bias'], running)

    total, residual = 0j, None
    for stage in reversed(range(len(teacher))):
        name = f'fusions.{stage}'
        x = norm(convolved(values[f'student.{stage}'], values[f'{name}.project.0.weight']), f'{name}.project.1')
        if residual is not None:
            x = gated(x, nearest(residual, *size(x)), values[f'{name}.gate.weight'], values[f'{name}.gate.bias'])
        residual = nearest(x, *size(teacher[stage]))
        out = norm(convolved(residual, values[f'{name}.out.0.weight'], padding=1), f'{name}.out.1')
        total += hcl(out, teacher[stage])
    return total


def nested(numbers: Sequence[Any], shape: Sequence[int]) -> Any:
    if len(shape) < 2:
        return list(numbers)
    step = len(numbers) // shape[0]
    return [nested(numbers[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def gradient(function: Callable[[Any], complex], tensor: Tensor) -> Tensor:
    """d function(nested list) / d each number, by a complex step in one number at a time."""
    numbers = tensor.flatten().tolist()
    slopes = []
    for i, x in enumerate(numbers):
        stepped = [*numbers[:i], x + 1j * STEP, *numbers[i + 1 :]]
        slopes.append((function(nested(stepped, tensor.shape)) / STEP).imag)
    return torch.tensor(slopes, dtype=torch.float64).reshape(tensor.shape)


def slope(function: Callable[[Any], complex], tensor: Tensor, direction: Tensor) -> float:
    """The derivative of function(nested list) along a direction, by a complex step."""
    return (function((tensor + 1j * STEP * direction).tolist()) / STEP).imag


def normal(*shapes: Sequence[int], seed: int = 0) -> Any:
    """A list of float64 maps for the tests, normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
