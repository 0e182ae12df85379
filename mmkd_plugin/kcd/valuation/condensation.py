"""From scores to a smaller training set: what stays, what goes, what is mixed with what."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank(scores: ArrayLike, among_equals: ArrayLike | None = None) -> NDArray[np.int64]:
    """Positions in descending order of score; equal ones in the order given, so that every process ranks alike.

    Args:
        scores: (K,) numbers; +inf comes first.
        among_equals: (K,) scores that rank those of equal score; for counts, where the order given, often that of
            classes, would decide.

    Returns:
        (K,) int64, the position of the highest score first.

    Raises:
        ValueError: If the scores are not (K,), or one is NaN.

    Example:
        >>> rank([1.0, 3.0, float('inf'), 3.0]).tolist()
        [2, 1, 3, 0]
        >>> rank([1.0, 1.0, 2.0], among_equals=[0.1, 0.7, 0.0]).tolist()
        [2, 1, 0]
    """
    keys = -np.asarray(scores, np.float64)
    if keys.ndim != 1:
        raise ValueError(f'scores of shape {keys.shape} given, expected one row (K,)')
    order = keys.argsort(kind='stable') if among_equals is None else np.lexsort((-np.asarray(among_equals), keys))
    if len(keys) and np.isnan(keys[order[-1]]):  # NaN is sorted to the end
        raise ValueError('NaN given as a score, expected numbers: NaN has no rank. See what made it')
    return order.astype(np.int64, copy=False)


def random_scores(size: int, seed: int, round_number: int) -> NDArray[np.float64]:
    """Scores that mean nothing: condensation to the same budget by chance, the control of any claim about a value.

    They come from a generator of their own, so that training draws what it draws without them. Every round draws
    anew: a sample that was dropped is kept as easily as any other.

    Args:
        size: Samples in the training set.
        seed: The run's, >= 0.
        round_number: Rounds done before.

    Returns:
        (size,), uniform in [0, 1).

    Example:
        >>> [rank(random_scores(5, seed=0, round_number=number)).tolist() for number in (0, 1)]
        [[4, 0, 1, 2, 3], [3, 0, 2, 1, 4]]
    """
    return np.random.default_rng([seed, round_number]).random(size)


@dataclass(frozen=True, eq=False)
class Condensation:
    """A ranked training set in three parts, as :func:`condense` makes it; arrays may be views of its ``order``.

    Args:
        high: (H,) samples to distil as they are, best first.
        low: (L,) samples to distil after mixing each with its partner, best first.
        dropped: (D,) all others, best first.
        partners: (L,) for each of ``low``, a sample of ``dropped``.
        epsilon: (L,) float32, how much of the partner to mix in (dimensionless).
    """

    high: NDArray[np.int64]
    low: NDArray[np.int64]
    dropped: NDArray[np.int64]
    partners: NDArray[np.int64]
    epsilon: NDArray[np.float32]


def condense(order: NDArray[np.signedinteger[Any]], keep: int, previous: int, epsilon_max: float) -> Condensation:
    r"""Keep the best, and mix what this round drops into the worst of them.

    C. Li et al., "Knowledge Condensation Distillation", ECCV 2022, arXiv 2207.05409, Eq 14 and 15. K_0 is
    ``order[keep:previous]``. The last ``|K_0|`` of the kept samples are its hosts, the best host for the best of K_0;
    if fewer than ``|K_0|`` are kept, all are hosts, and the last of K_0 go unused. Of the i-th of L partners,
    ``epsilon_max * i / L`` is mixed in, i = 0 ... L - 1, as in the official code: never quite ``epsilon_max``.

    Nothing is mixed if ``keep == previous`` (where the official code fails) or ``epsilon_max == 0``.

    Args:
        order: (M,) sample numbers, best first and none twice: of all samples, so that dropped ones may come back (the
            official code), or of those kept so far.
        keep: How many to keep.
        previous: How many were kept before.
        epsilon_max: Upper bound of what is mixed in, in [0, 1] (dimensionless; 0.3 in the paper).

    Returns:
        The parts; high, low and dropped have each sample of ``order`` once.

    Raises:
        TypeError: If the sample numbers are not whole numbers.
        ValueError: If not ``1 <= keep <= previous <= M`` and ``0 <= epsilon_max <= 1``.

    Example:
        >>> condense(np.array([7, 3, 9, 4]), keep=3, previous=4, epsilon_max=0.3)
        Condensation(high=array([7, 3]), low=array([9]), dropped=array([4]), partners=array([4]),
                     epsilon=array([0.], dtype=float32))
    """
    order = np.asarray(order)
    if order.dtype.kind != 'i':
        raise TypeError(f'order of type {order.dtype} given, expected sample numbers, as signed whole numbers')
    if order.ndim != 1 or not 1 <= keep <= previous <= len(order):
        raise ValueError(
            f'keep={keep}, previous={previous} and an order of shape {order.shape} given, '
            'expected one row (M,) and 1 <= keep <= previous <= M'
        )
    if not 0 <= epsilon_max <= 1:
        raise ValueError(
            f'epsilon_max={epsilon_max} given, expected a number from 0 to 1, such as the 0.3 of the paper'
        )
    order = order.astype(np.int64, copy=False)
    mixed = min(previous - keep, keep) if epsilon_max else 0
    return Condensation(
        high=order[: keep - mixed],
        low=order[keep - mixed : keep],
        dropped=order[keep:],
        partners=order[keep : keep + mixed],
        epsilon=(epsilon_max * np.arange(mixed) / max(mixed, 1)).astype(np.float32),
    )
