"""How many samples to go on with, round after round."""

from collections.abc import Sequence
from fractions import Fraction


def keep_counts(size: int, rounds: int, final_ratio: float, schedule: str | Sequence[float] = 'linear') -> list[int]:
    r"""Samples that are kept after each round; never more than before, never none.

    C. Li et al., "Knowledge Condensation Distillation", ECCV 2022, arXiv 2207.05409; the paper leaves the steps open.

    - ``'linear'``: ``N - int(r N (1 - rho) / rounds)`` for r = 1 ... rounds. The official code has a fixed 6 for
      ``rounds``, and rounds every step down instead, which may end ``rounds`` samples above ``rho N``, or drop nothing.
    - ``'geometric'``: ``round(N rho ** (r / rounds))`` for r = 1 ... rounds.
    - A sequence: ``int(ratio N)``, one ratio for each round; ``final_ratio`` is not used then.

    Ratios are the decimal fractions they are written as: 0.29 of 100 is 29, where floating point makes 28 of it.

    Args:
        size: Samples in the training set, N.
        rounds: How often samples are dropped.
        final_ratio: Kept part rho at the end, in (0, 1] (dimensionless; 0.7 in the paper).
        schedule: ``'linear'``, ``'geometric'`` or the kept part after each round, in (0, 1], never rising.

    Returns:
        One number for each round, from 1 to N.

    Raises:
        TypeError: If the schedule is neither a name nor a list.
        ValueError: If a number is out of its range, the name unknown, or the list too long, too short or rising.

    Example:
        >>> keep_counts(50000, rounds=6, final_ratio=0.7)
        [47500, 45000, 42500, 40000, 37500, 35000]
    """
    if not all(isinstance(n, int) and n >= 1 for n in (size, rounds)):
        raise ValueError(f'size={size!r} and rounds={rounds!r} given, expected whole numbers > 0')
    final = _decimal(final_ratio, 'final_ratio')
    if schedule == 'linear':
        counts = [size - int(r * size * (1 - final) / rounds) for r in range(1, rounds + 1)]
    elif schedule == 'geometric':
        counts = [round(size * float(final) ** (r / rounds)) for r in range(1, rounds + 1)]
    elif isinstance(schedule, str):
        raise ValueError(f"schedule={schedule!r} given, expected 'linear', 'geometric' or a list of ratios")
    elif not isinstance(schedule, Sequence):
        raise TypeError(f"schedule={schedule!r} given, expected 'linear', 'geometric' or a list of ratios")
    else:
        ratios = [_decimal(ratio, 'a ratio of schedule') for ratio in schedule]
        if len(ratios) != rounds or ratios != sorted(ratios, reverse=True):
            raise ValueError(
                f'schedule={schedule!r} given, expected {rounds} ratios, one for each round, none above the one before'
            )
        counts = [int(ratio * size) for ratio in ratios]
    return [max(count, 1) for count in counts]


def _decimal(ratio: object, name: str) -> Fraction:
    if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not 0 < ratio <= 1:
        raise ValueError(f'{name} {ratio!r} given, expected a number above 0 and at most 1')
    return Fraction(str(float(ratio)))
