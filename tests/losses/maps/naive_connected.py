"""OFD, VID and SemCKD straight from their formulas, one Python number at a time; see ``naive_features``.

``values`` holds the student's maps as ``student.<stage>``, and the state dict of the loss. Written from the papers'
equations, with what the references say of the connectors.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial as bind
from math import exp, log, pi, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..naive_features import (
    Batch,
    Row,
    convolved,
    dot,
    flat,
    mean,
    normal,
    normalised,
    pooled,
    rectified,
    size,
    slope,
    unit,
)

Values = Mapping[str, Any]


def margin(beta: float, gamma: float, steps: int = 20_000) -> float:
    """E[x | x < 0] for x ~ N(beta, gamma²), by the midpoint rule over the eight deviations below 0 or beta."""
    spread = abs(gamma)
    top = min(0.0, beta + 8 * spread)
    bottom = min(0.0, beta) - 8 * spread
    width = (top - bottom) / steps
    mass = moment = 0.0
    for i in range(steps):
        x = bottom + (i + 0.5) * width
        density = exp(-(((x - beta) / spread) ** 2) / 2) / (spread * sqrt(2 * pi)) * width
        mass += density
        moment += x * density
    return moment / mass if mass > 0.001 else -3 * spread


def smaller(a: Batch, b: Batch) -> tuple[int, int]:
    return min(size(a)[0], size(b)[0]), min(size(a)[1], size(b)[1])


def partial(student: Batch, teacher: Batch, margins: Row) -> complex:
    """1/N · sum of d: 0 where s ≤ t' ≤ 0, else (t' − s)²; t' = max(t, m) (arXiv 1904.01866)."""
    to = smaller(student, teacher)
    total = 0j
    for s_image, t_image in zip(pooled(student, *to), pooled(teacher, *to), strict=True):
        for s_plane, t_plane, m in zip(s_image, t_image, margins, strict=True):
            for s, t in zip(flat(s_plane), flat(t_plane), strict=True):
                clipped = t if t.real > m.real else m
                if not s.real <= clipped.real <= 0:
                    total += (clipped - s) ** 2
    return total / len(student)


def normed(values: Values, x: Batch, name: str, training: bool) -> Batch:
    running = None if training else (values[f'{name}.running_mean'], values[f'{name}.running_var'])
    return normalised(x, values[f'{name}.weight'], values[f'{name}.bias'], running)


def ofd(values: Values, teacher: Sequence[Batch], training: bool) -> complex:
    """Over stages i of n, 2^−(n − i) · partial(batch norm(1 × 1 convolution(s)), t)."""
    total = 0j
    for i, target in enumerate(teacher):
        name = f'connectors.{i}'
        x = normed(values, convolved(values[f'student.{i}'], values[f'{name}.conv.weight']), f'{name}.norm', training)
        total += partial(x, target, values[f'{name}.margin']) / 2 ** (len(teacher) - 1 - i)
    return total


def log_of(x: complex) -> complex:
    return log(x.real) + 1j * x.imag / x.real  # to first order, as a complex step needs


def exp_of(x: complex) -> complex:
    return exp(x.real) * (1 + 1j * x.imag)


def vid(values: Values, teacher: Batch, eps: float) -> complex:
    """mean of ½ · [(t − mu)² / sigma_c² + log sigma_c²]; sigma_c² = log(1 + e^alpha_c) + eps (arXiv 1904.05835)."""
    to = smaller(values['student.0'], teacher)
    mu = pooled(values['student.0'], *to)
    for layer in (0, 2, 4):
        mu = convolved(mu, values[f'regressor.{layer}.weight'])
        mu = rectified(mu) if layer < 4 else mu
    variances = [log_of(1 + exp_of(complex(alpha))) + eps for alpha in values['alpha']]
    return mean(
        [
            ((t - m) ** 2 / variance + log_of(variance)) / 2
            for m_image, t_image in zip(mu, pooled(teacher, *to), strict=True)
            for m_plane, t_plane, variance in zip(m_image, t_image, variances, strict=True)
            for m, t in zip(flat(m_plane), flat(t_plane), strict=True)
        ]
    )


def embedded(values: Values, maps: Batch, name: str, batch_size: int) -> list[list[complex]]:
    """Each sample's similarities with the batch, through two linear layers with a ReLU between, at length 1."""

    def linear(x: Row, layer: int) -> list[complex]:
        weight, bias = values[f'{name}.{layer}.weight'], values[f'{name}.{layer}.bias']
        return [dot(row, x) + b for row, b in zip(weight, bias, strict=True)]

    vectors = [[x for plane in image for x in flat(plane)] for image in maps]
    rows = []
    for own in vectors:
        row = [dot(own, other) for other in vectors] + [0j] * (batch_size - len(vectors))
        hidden = [x if x.real > 0 else 0j for x in linear(row, 0)]
        rows.append(unit(linear(hidden, 2)))
    return rows


def projected(values: Values, x: Batch, name: str, training: bool) -> Batch:
    x = rectified(normed(values, convolved(x, values[f'{name}.0.weight']), f'{name}.1', training))
    x = rectified(normed(values, convolved(x, values[f'{name}.3.weight'], padding=1), f'{name}.4', training))
    return convolved(x, values[f'{name}.6.weight'])


def softmax(row: Row) -> list[complex]:
    exps = [exp_of(x) for x in row]
    return [x / sum(exps) for x in exps]


def semckd(values: Values, teacher: Sequence[Batch], batch_size: int, training: bool) -> complex:
    """1/(N n_s) · sum_b sum_i sum_j a_b[i, j] · mean_chw(Proj_ij(F_s^i) − F_t^j)²_b (arXiv 2012.03236)."""
    students = [values[f'student.{i}'] for i in range(sum(name.startswith('student.') for name in values))]
    queries = [embedded(values, s, f'queries.{i}', batch_size) for i, s in enumerate(students)]
    keys = [embedded(values, t, f'keys.{j}', batch_size) for j, t in enumerate(teacher)]
    count, total = len(students[0]), 0j
    for i, s in enumerate(students):
        attention = [softmax([dot(queries[i][b], key[b]) for key in keys]) for b in range(count)]
        for j, t in enumerate(teacher):
            to = smaller(s, t)
            out = projected(values, pooled(s, *to), f'projections.{i}.{j}', training)
            for b, (o_image, t_image) in enumerate(zip(out, pooled(t, *to), strict=True)):
                squares = [
                    (o - x) ** 2
                    for o_plane, t_plane in zip(o_image, t_image, strict=True)
                    for o, x in zip(flat(o_plane), flat(t_plane), strict=True)
                ]
                total += attention[b][j] * mean(squares)
    return total / (count * len(students))


def check(
    loss: nn.Module, student: Sequence[Tensor], call: Callable[[], Tensor], formula: Callable[[Any], complex]
) -> None:
    """Value of a call, and its slopes by the student's maps and by all parameters, against formula(values)."""
    for module in loss.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data = torch.rand_like(tensor) + 0.5
    wanted = {f'student.{i}': tap.requires_grad_() for i, tap in enumerate(student)} | dict(loss.named_parameters())
    values = {name: tensor.detach().clone() for name, tensor in (*loss.state_dict().items(), *wanted.items())}
    lists = {name: tensor.tolist() for name, tensor in values.items()}

    def changed(name: str, numbers: Any) -> complex:
        return formula(lists | {name: numbers})

    value = call()
    assert value.item() == pytest.approx(formula(lists).real, rel=1e-9)
    gradients = torch.autograd.grad(value, list(wanted.values()))
    for name, gradient in zip(wanted, gradients, strict=True):
        (direction,) = normal(values[name].shape, seed=2)
        expected = slope(bind(changed, name), values[name], direction)
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-7, abs=1e-10), name
