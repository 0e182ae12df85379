"""How far values have fallen while some samples were left out."""

import numpy as np
from numpy.typing import ArrayLike


def level(values: ArrayLike) -> float:
    """The median, to compare with a later one of the same samples.

    Args:
        values: (K,), in the unit of the value function.

    Returns:
        The median; NaN without values.
    """
    values = np.asarray(values, np.float64)
    return float(np.median(values)) if values.size else float('nan')


def fall(before: float, now: float) -> float:
    """By which factor values changed, for samples that were not looked at meanwhile.

    Our addition to KCD (C. Li et al., ECCV 2022, arXiv 2207.05409), whose official code leaves the value of a dropped
    sample as it was.

    Args:
        before: The :func:`level` of the kept samples when the others were dropped.
        now: That of the same samples now.

    Returns:
        ``now / before``; below 1 where values fell. 1 where the level was 0, or is not known.

    Example:
        >>> fall(level([1.0, 2.0, 4.0]), level([0.1, 0.5, 0.9]))
        0.25
    """
    return now / before if before > 0 and np.isfinite(now) else 1.0
