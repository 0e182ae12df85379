"""What happens to concepts over the checkpoints of one training run.

X. Cheng et al., CVPR 2020, arXiv 2003.03622, equations 7 and 8.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


def path_length(weights: Sequence[Tensor]) -> Tensor:
    """How far a layer has gone at each checkpoint: ``sum_k ||w_k - w_{k-1}|| / ||w_0||``.

    Args:
        weights: One tensor for each checkpoint, the first of them ``w_0``.

    Returns:
        (K,) in float64, 0 at the first; never falls, and is the same for weights times a number.

    Raises:
        ValueError: If there are none, or the first is 0.
    """
    flat = [w.detach().double().flatten() for w in weights]
    if not flat or not bool(flat[0].any()):
        raise ValueError(f'{len(flat)} checkpoints given, expected some, of which the first is not all zero')
    steps = [torch.dist(after, before) for before, after in pairwise(flat)]
    return torch.stack([flat[0].new_zeros(()), *steps]).cumsum(0) / flat[0].norm()


class Speed(NamedTuple):
    """How early, and how simultaneously, most concepts of an image are learned; smaller is better.

    Attributes:
        mean: D_mean, over images.
        std: D_std, the standard deviation over images (of the images as they are, divided by N).
        variance: Its square, which the paper's code reports.
        at: The path of each image at its checkpoint with the most concepts (N,).
        checkpoint: Which one that is, the first if there are several (N,).
    """

    mean: float
    std: float
    variance: float
    at: Tensor
    checkpoint: Tensor


def learning_speed(counts: Tensor, path: Tensor) -> Speed:
    """D_mean and D_std.

    Args:
        counts: N_fg of each checkpoint and image (K, N).
        path: Of each checkpoint (K,), see :func:`path_length`.

    Raises:
        ValueError: If shapes do not fit, or the path falls.
    """
    if counts.ndim != 2 or not counts.numel() or path.shape != counts.shape[:1] or bool((path.diff() < 0).any()):
        raise ValueError(
            f'counts {tuple(counts.shape)} and path {path.tolist()} given, expected (checkpoints, images) and a path '
            'for each checkpoint that never falls'
        )
    most = counts == counts.max(0).values
    first = torch.where(most, torch.arange(len(counts))[:, None], len(counts)).min(0).values
    at = path.double()[first]
    variance = float(at.var(correction=0))
    return Speed(float(at.mean()), variance**0.5, variance, at, first)


def stability(concepts: Tensor) -> Tensor:
    """Of each image, the part of all concepts it ever had that is there at the end; the mean is rho.

    Args:
        concepts: Booleans (K, N, h, w), the concepts in the foreground at each checkpoint.

    Returns:
        (N,), from 0 to 1, larger where there were fewer detours; NaN for an image that never had a concept.
    """
    ever = concepts.any(0).flatten(1).sum(1).double()
    return concepts[-1].flatten(1).sum(1) / torch.where(ever > 0, ever, torch.nan)


class Changes(NamedTuple):
    """Numbers of concepts at each checkpoint in each image (K, N), against the checkpoint before (none at first)."""

    learned: Tensor
    kept: Tensor
    forgotten: Tensor


def changes(concepts: Tensor) -> Changes:
    """Which concepts came, stayed and went when.

    Args:
        concepts: Booleans (K, N, h, w).
    """
    before = torch.cat([torch.zeros_like(concepts[:1]), concepts[:-1]])
    found = (concepts & ~before, concepts & before, ~concepts & before)
    return Changes(*(one.flatten(2).sum(2) for one in found))


def effective(entropy: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Images whose foreground is, on average, discarded less than their background, at every checkpoint given.

    The paper looks at these alone, and asks for it from epoch 40 of 150 on.

    Args:
        entropy: (K, N, h, w).
        foreground: Booleans (N, h, w).
        background: Booleans (N, h, w).

    Returns:
        Booleans (N,).
    """
    inside, outside = ((entropy * mask).flatten(2).sum(2) / mask.flatten(1).sum(1) for mask in (foreground, background))
    return (inside < outside).all(0)
