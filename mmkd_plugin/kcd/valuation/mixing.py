"""Two images in one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MODES = ('convex', 'additive')


def mix(
    image: NDArray[Any], partner: NDArray[Any], epsilon: float | np.floating[Any], mode: str = 'convex'
) -> NDArray[Any]:
    r"""Add a little of a dropped image to one that is kept.

    C. Li et al., "Knowledge Condensation Distillation", ECCV 2022, arXiv 2207.05409, Eq 14.

    - ``'convex'``: ``(1 - epsilon) x + epsilon x_0``, as in the official code.
    - ``'additive'``: ``x + epsilon x_0``, as in the paper.

    uint8 images are mixed in float64 and cut off after the point, as in the official code, and at 255. The convex form
    is calculated as ``x + epsilon (x_0 - x)``, so that places where both agree stay as they are.

    Args:
        image: x, (H, W) or (H, W, C), uint8 or floats.
        partner: x_0, of the same shape and dtype.
        epsilon: Weight of the partner, from 0 to 1 (dimensionless).
        mode: ``'convex'`` or ``'additive'``.

    Returns:
        A new image of the same shape and dtype.

    Raises:
        TypeError: If they are no arrays of uint8 or floats.
        ValueError: If shapes or dtypes differ, epsilon is not in [0, 1], or the mode is unknown.

    Example:
        >>> mix(np.array([[10, 255]], np.uint8), np.array([[21, 255]], np.uint8), 0.3).tolist()
        [[13, 255]]
    """
    for array in (image, partner):
        if not isinstance(array, np.ndarray) or not (array.dtype == np.uint8 or array.dtype.kind == 'f'):
            given = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f'an image of type {given} given, expected a numpy array of uint8 or floats')
    if image.ndim not in (2, 3) or image.shape != partner.shape or image.dtype != partner.dtype:
        raise ValueError(
            f'images {image.shape} of {image.dtype} and {partner.shape} of {partner.dtype} given, expected two of the '
            'same shape (H, W) or (H, W, C) and dtype. Bring all images to one size before they are mixed'
        )
    if not 0 <= epsilon <= 1:
        raise ValueError(f'epsilon={epsilon} given, expected a number from 0 to 1')
    if mode not in MODES:
        raise ValueError(f'mode={mode!r} given, expected one of {MODES}')
    x, x_0 = image.astype(np.float64), partner.astype(np.float64)
    mixed = x + float(epsilon) * (x_0 - x if mode == 'convex' else x_0)
    return (np.clip(mixed, 0, 255) if image.dtype == np.uint8 else mixed).astype(image.dtype)
