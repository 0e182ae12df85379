"""What is remembered of every training sample: its mean value so far, and how often it was seen."""

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


class ValueTable:
    """Running mean of the value of each sample, and the number of values in it; 8 bytes a sample.

    C. Li et al., "Knowledge Condensation Distillation", ECCV 2022, arXiv 2207.05409, Eq 12 and 13. Every finite value
    counts; the official code takes an entropy of exactly 0 for "not seen".

    Args:
        size: Samples in the training set.

    Raises:
        ValueError: If the size is not a whole number > 0.

    Example:
        >>> table = ValueTable(2)
        >>> for value in (1.0, 2.0, 6.0):
        ...     table.update([0], [value])
        >>> table.mean[0].item(), table.count[0].item(), table.scores(alpha=0.0).tolist()
        (3.0, 3, [3.0, inf])
    """

    #: Whether values are counts, of which many are equal: then chance ranks these.
    counts_events: ClassVar[bool] = False

    def __init__(self, size: int) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f'size={size!r} given, expected the number of training samples, a whole number > 0')
        self.mean: NDArray[np.float32] = np.zeros(size, np.float32)
        self.count: NDArray[np.int32] = np.zeros(size, np.int32)

    def __len__(self) -> int:
        return len(self.mean)

    def update(self, indices: Tensor | ArrayLike, values: Tensor | ArrayLike, times: int = 1) -> None:
        """Add one value to each of some samples: ``V <- (F - 1) / F * V + v / F`` (Eq 12). All are added, or none.

        Args:
            indices: (N,) whole numbers from 0 to size - 1, none twice.
            values: (N,), in the unit of the value function (nats for entropy).
            times: As how many values each counts.

        Raises:
            FloatingPointError: If a value is not finite; names the first five such samples.
            TypeError: If the indices are not whole numbers.
            ValueError: If shapes differ, or an index is out of range or there twice.
        """
        index, value = self._checked(indices, values)
        if len(index):
            self._add(index, value, times)

    def _add(self, index: NDArray[Any], value: NDArray[np.float64], times: int) -> None:
        self.count[index] += times
        before = self.mean[index].astype(np.float64)
        self.mean[index] = before + times * (value - before) / self.count[index]

    def _checked(
        self, indices: Tensor | ArrayLike, values: Tensor | ArrayLike
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        index = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices)
        value = np.asarray(values.detach().cpu().double() if isinstance(values, Tensor) else values, np.float64)
        if index.ndim != 1 or index.shape != value.shape:
            raise ValueError(f'indices {index.shape} and values {value.shape} given, expected one value for each index')
        if not index.size:
            return index, value
        if index.dtype.kind not in 'iu':
            raise TypeError(f'indices of type {index.dtype} given, expected whole numbers')
        if index.min() < 0 or index.max() >= len(self):
            raise ValueError(
                f'indices from {index.min()} to {index.max()} given, expected 0 to {len(self) - 1}: the table is for '
                f'{len(self)} samples. Make it as long as the training set that counts the indices'
            )
        unique, times = np.unique(index, return_counts=True)
        if len(unique) < len(index):
            raise ValueError(
                f'samples {unique[times > 1][:5].tolist()} given more than once, expected each once in a call. '
                'Leave out repetitions (a sampler that fills up the last batch makes some), or call once for each'
            )
        if not np.isfinite(value).all():
            bad = index[~np.isfinite(value)]
            raise FloatingPointError(
                f'values of {len(bad)} samples are not finite, first of samples {bad[:5].tolist()}; expected finite '
                'ones. The logits are NaN or infinite: look at these samples, lower the learning rate, or clip '
                'gradients; with float16, try bfloat16'
            )
        return index, value

    def age(self, indices: NDArray[np.signedinteger[Any]], factor: float) -> None:
        """Multiply the means of some samples, so that they fall as those of others did.

        Args:
            indices: (N,).
            factor: Such as what :func:`.fall` gives (dimensionless).
        """
        self.mean[indices] = self.mean[indices].astype(np.float64) * factor

    def scores(self, alpha: float) -> NDArray[np.float64]:
        """What samples are ranked by (Eq 13): ``mean * count ** alpha``; +inf for samples never seen.

        So what was never seen is never dropped. With alpha > 0, the more trained of two samples of equal mean is
        worth more: training has not brought its value down.

        Args:
            alpha: Weight of the training so far, >= 0 (dimensionless; 0.03 in the paper).

        Returns:
            (size,) in the unit of the value function.

        Raises:
            ValueError: If alpha is not a finite number >= 0.
        """
        if not 0 <= alpha < float('inf'):
            raise ValueError(f'alpha={alpha} given, expected a finite number >= 0, such as the 0.03 of the paper')
        scores = self.mean.astype(np.float64) * np.power(self.count, alpha, dtype=np.float64)
        scores[self.count == 0] = np.inf
        return scores

    def state_dict(self) -> dict[str, Any]:
        """A copy of the table for a checkpoint: the size, and tensors (size,) of means and counts."""
        return {'size': len(self), 'mean': torch.tensor(self.mean), 'count': torch.tensor(self.count)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            ValueError: If it is of a table of another size, or is no such state.
        """
        if set(state) != {'size', 'mean', 'count'}:
            raise ValueError(f'a state with {sorted(state)} given, expected size, mean and count, from a ValueTable')
        if state['size'] != len(self):
            raise ValueError(
                f'values of {state["size"]} samples given, expected {len(self)}: the data set changed since they were '
                'written, and sample numbers mean other samples now. Resume with the data set of then, or start anew'
            )
        # mmengine loads checkpoints onto the GPU
        mean = torch.as_tensor(state['mean']).cpu().float().numpy().copy()
        count = torch.as_tensor(state['count']).cpu().int().numpy().copy()
        if {mean.shape, count.shape} != {self.mean.shape} or not np.isfinite(mean).all() or (count < 0).any():
            raise ValueError(
                f'means {mean.shape} and counts {count.shape} given, expected {self.mean.shape} for both, finite means '
                'and no count below 0. The checkpoint is damaged: resume from another'
            )
        self.mean, self.count = mean, count


class ForgettingTable(ValueTable):
    """How often each sample was forgotten: right when it was seen last, and wrong now; 10 bytes a sample.

    M. Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning", ICLR 2019, arXiv
    1812.05159, algorithm 1. ``mean`` holds the counts, ``count`` the times seen. A sample that was never right counts
    as forgotten infinitely often, as there. High counts are kept; equal ones, which are most, are ranked by chance.

    Deviation: what is ranked is the count times ``(times seen)^alpha``, as for every value (KCD's Eq 13); with
    ``alpha=0`` the count alone.

    Args:
        size: Samples in the training set.

    Raises:
        ValueError: If the size is not a whole number > 0.

    Example:
        >>> table = ForgettingTable(2)
        >>> for wrong in ([1, 1], [0, 1], [1, 1], [0, 1], [1, 1]):
        ...     table.update([0, 1], wrong)
        >>> table.mean.tolist(), table.scores(alpha=0.0).tolist()
        ([2.0, 0.0], [2.0, inf])
    """

    counts_events = True

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.right = np.zeros(size, bool)
        self.learned = np.zeros(size, bool)

    def _add(self, index: NDArray[Any], value: NDArray[np.float64], times: int) -> None:
        right = value == 0
        self.mean[index] += self.right[index] & ~right
        self.right[index] = right
        self.learned[index] |= right
        self.count[index] += times

    def scores(self, alpha: float) -> NDArray[np.float64]:
        """As :meth:`ValueTable.scores`; +inf for samples that were never right as well."""
        scores = super().scores(alpha)
        scores[~self.learned] = np.inf
        return scores

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`ValueTable.state_dict`, with two tensors (size,) of booleans."""
        return {**super().state_dict(), 'right': torch.tensor(self.right), 'learned': torch.tensor(self.learned)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            ValueError: If it is of a table of another size or kind, or is no such state.
        """
        state = dict(state)
        flags = [np.asarray(state.pop(name, torch.zeros(0)).cpu()) for name in ('right', 'learned')]
        if any(flag.shape != (len(self),) or flag.dtype != bool for flag in flags) and state.get('size') == len(self):
            raise ValueError(
                'a state without what was right before given, expected that of a ForgettingTable: resume with the '
                'value that the checkpoint was written with'
            )
        super().load_state_dict(state)
        self.right, self.learned = (flag.copy() for flag in flags)
