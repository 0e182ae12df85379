"""Losses that relate layers, straight from their formulas, in loops, which autograd differentiates."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def pooled(plane: Tensor, height: int, width: int, pool: str) -> Tensor:
    """Adaptive pooling: place i of n is of floor(i·H/n) .. ceil((i + 1)·H/n)."""

    def bins(size: int, places: int) -> list[slice]:
        return [slice(i * size // places, -(-(i + 1) * size // places)) for i in range(places)]

    def place(rows: slice, columns: slice) -> Tensor:
        return plane[rows, columns].max() if pool == 'max' else plane[rows, columns].mean()

    hs, ws = bins(len(plane), height), bins(plane.size(1), width)
    return torch.stack([torch.stack([place(rows, columns) for columns in ws]) for rows in hs])


def flow(first: Tensor, second: Tensor, pool: str) -> list[list[Tensor]]:
    """G[i][j] = mean over places of F1_i · F2_j, of one image (C, H, W) of two layers."""
    height, width = (min(first.size(d), second.size(d)) for d in (1, 2))
    a, b = ([pooled(plane, height, width, pool) for plane in image] for image in (first, second))
    return [[(x * y).mean() for y in b] for x in a]


def fsp(student: Sequence[Tensor], teacher: Sequence[Tensor], pool: str) -> Tensor:
    """Sum over pairs of the mean over n, i, j of (G_s − G_t)²."""
    total = torch.zeros((), dtype=torch.float64)
    for layer in range(len(student) - 1):
        squares = []
        for n in range(len(student[0])):
            g_s = flow(student[layer][n], student[layer + 1][n], pool)
            g_t = flow(teacher[layer][n], teacher[layer + 1][n], pool)
            squares += [(s - t) ** 2 for rows in zip(g_s, g_t, strict=True) for s, t in zip(*rows, strict=True)]
        total = total + torch.stack(squares).mean()
    return total


def decomposed(image: Tensor, count: int) -> tuple[list[Tensor], list[float]]:
    """Right singular vectors and singular values of one map (C, H, W) as a matrix of places × channels."""
    matrix = torch.stack([plane.flatten() for plane in image]).T
    _, values, rows = torch.linalg.svd(matrix, full_matrices=False)
    return list(rows[:count]), values[:count].tolist()


def aligned(student: Tensor, teacher: Tensor, k: int) -> tuple[list[Tensor], list[Tensor]]:
    """The student's vector next to each of the teacher's (which sum to 0 or more), and these; times the values."""
    theirs, values = decomposed(teacher, k)
    theirs = [v if v.sum() >= 0 else -v for v in theirs]
    own, _ = decomposed(student, k + 3)
    length = math.sqrt(sum(value**2 for value in values))
    chosen = []
    for v in theirs:
        cosines = [float(w.detach() @ v) for w in own]
        best = max(range(len(own)), key=lambda i: abs(cosines[i]))
        chosen.append(own[best] * (1 if cosines[best] >= 0 else -1))
    weights = [value / length for value in values]
    return [v * w for v, w in zip(chosen, weights, strict=True)], [v * w for v, w in zip(theirs, weights, strict=True)]


def kdsvd(student: Sequence[Tensor], teacher: Sequence[Tensor], k: int = 1) -> Tensor:
    """(1/N) sum_n sum_l sum_cc'j (R_s − R_t)², R = exp(−(V_l[c, j] − V_{l−1}[c', j])²/8)."""
    total = torch.zeros((), dtype=torch.float64)
    for n in range(len(student[0])):
        layers = [aligned(s[n], t[n], k) for s, t in zip(student, teacher, strict=True)]
        for (front_s, front_t), (back_s, back_t) in pairwise(layers):
            for j in range(k):
                for c in range(len(back_s[j])):
                    for c2 in range(len(front_s[j])):
                        r_s = torch.exp(-((back_s[j][c] - front_s[j][c2]) ** 2) / 8)
                        r_t = torch.exp(-((back_t[j][c] - front_t[j][c2]) ** 2) / 8)
                        total = total + (r_s - r_t) ** 2
    return total / len(student[0])
