"""When a loss counts, and how much of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Active interval and linear warm-up of a loss.

    Active for ``begin <= t < end``, where t counts epochs (or iterations) from 0. Inside it the
    factor rises as ``min((t - begin + 1) / warmup, 1)``: with ``by_epoch`` this is the published
    ``min(epoch / warmup, 1)`` with epochs counted from 1.

    Args:
        begin: First active epoch (or iteration), from 0.
        end: First inactive one after that; None for no end.
        warmup: Length of the linear rise; 0 for none.
        by_epoch: Count epochs (default) or iterations.

    Raises:
        ValueError: If the interval is empty or a number is negative.

    Example:
        >>> [Schedule(begin=2, end=6, warmup=2).factor(t, 0) for t in range(7)]
        [0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 0.0]
    """

    begin: int = 0
    end: int | None = None
    warmup: int = 0
    by_epoch: bool = True

    def __post_init__(self) -> None:
        if not all(isinstance(n, int) for n in (self.begin, self.warmup, self.end or 0)):
            raise ValueError(f'{self} given, expected whole numbers')
        if self.begin < 0 or self.warmup < 0 or (self.end is not None and self.end <= self.begin):
            raise ValueError(f'{self} given, expected begin >= 0, warmup >= 0 and end > begin (or end=None)')

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 at all times."""
        return self.begin == 0 and self.end is None and self.warmup <= 1

    def factor(self, epoch: int, iteration: int) -> float:
        """The factor on the loss, in [0, 1]; 0 means inactive."""
        t = epoch if self.by_epoch else iteration
        if t < self.begin or (self.end is not None and t >= self.end):
            return 0.0
        return min((t - self.begin + 1) / self.warmup, 1.0) if self.warmup else 1.0
