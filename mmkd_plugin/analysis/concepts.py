"""Visual concepts: cells of an image that a layer discards much less of than of the background.

X. Cheng et al., CVPR 2020, arXiv 2003.03622, equations 4 to 6.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..options import check_number


class Concepts(NamedTuple):
    """Of N images.

    Attributes:
        cells: Which cells are concepts, booleans (N, h, w).
        foreground: How many of them lie in the foreground, N_fg (N,).
        background: And in the background, N_bg (N,).
        ratio: ``N_fg / (N_fg + N_bg)``, 0 where there are none, (N,); its mean is lambda.
    """

    cells: Tensor
    foreground: Tensor
    background: Tensor
    ratio: Tensor


def background_level(entropy: Tensor, background: Tensor) -> Tensor:
    """Mean entropy of the background cells of each image, (N,).

    Raises:
        ValueError: If an image has none.
    """
    if background.shape != entropy.shape or background.dtype != torch.bool:
        raise ValueError(
            f'masks {background.dtype} {tuple(background.shape)} given for entropies {tuple(entropy.shape)}, expected '
            'booleans, one for each cell'
        )
    counts = background.flatten(1).sum(1)
    if not bool(counts.all()):
        raise ValueError(f'images {(counts == 0).nonzero().flatten().tolist()} have no background, expected some')
    return (entropy * background).flatten(1).sum(1) / counts


def find_concepts(
    entropy: Tensor,
    foreground: Tensor,
    background: Tensor | None = None,
    threshold: float = 0.2,
    level: Literal['image', 'all'] = 'image',
) -> Concepts:
    """Cells whose entropy is below that of the background by more than a threshold.

    Args:
        entropy: (N, h, w), in nats, of one checkpoint.
        foreground: Booleans (N, h, w).
        background: Booleans; default: all that is not foreground. Cells that are neither (padding) do not count.
        threshold: ``b``, in nats; the paper's code has 0.2.
        level: What they are below of: the mean over the background of their own image, as in the formula, or of all
            images, as in the paper's code.

    Raises:
        ValueError: If masks do not fit, overlap, or an image has no background.
    """
    check_number(threshold, 'threshold')
    if level not in ('image', 'all'):
        raise ValueError(f"level={level!r} given, expected 'image' or 'all'")
    background = ~foreground if background is None else background
    mean = background_level(entropy, background)
    if foreground.shape != entropy.shape or foreground.dtype != torch.bool or bool((foreground & background).any()):
        raise ValueError(
            f'foreground {foreground.dtype} {tuple(foreground.shape)} given for entropies {tuple(entropy.shape)}, '
            'expected booleans, one for each cell, and no cell in both foreground and background'
        )
    mean = mean if level == 'image' else mean.mean().expand_as(mean)
    cells = ((mean[:, None, None] - entropy) > threshold) & (foreground | background)
    inside, outside = ((cells & mask).flatten(1).sum(1) for mask in (foreground, background))
    return Concepts(cells, inside, outside, inside / (inside + outside).clamp_min(1))
