"""What follows from epochs that shrink: length of the run, schedules by iteration."""

from collections.abc import Iterator, Sequence
from typing import Any

from .dataset import CondensedSampler


class Pace:
    """Keeps a runner's planned iterations and its schedules by iteration right.

    Args:
        runner: mmengine's, with an epoch-based loop over the condensed data.
        sampler: Of that loop.
        rounds: After how many epochs each condensation comes.
        counts: How many points are kept after each.
    """

    def __init__(self, runner: Any, sampler: CondensedSampler, rounds: Sequence[int], counts: Sequence[int]) -> None:
        self.runner = runner
        self.loader = runner.train_loop.dataloader
        self.full = len(self.loader)
        self.saved = 0
        total, start = 0, 0
        for end, keep in zip([*rounds, runner.max_epochs], [len(sampler.dataset), *counts], strict=False):
            sampler.keep(range(keep))
            if len(self.loader) == 0:
                raise ValueError(
                    f'KCDHook: an epoch of {keep} kept samples has no whole batch, and drop_last=True drops the '
                    'others: take a smaller batch_size, a larger final_ratio or drop_last=False'
                )
            total += (min(end, runner.max_epochs) - start) * len(self.loader)
            start = end
        sampler.keep(range(len(sampler.dataset)))
        runner.train_loop._max_iters = total  # for the estimated time of arrival

    def after_iteration(self, batch_idx: int) -> None:
        """Step schedules by iteration as far as a full epoch would have stepped them by now."""
        now = len(self.loader)
        extra = (batch_idx + 1) * self.full // now - batch_idx * self.full // now - 1
        for _ in range(extra):
            for scheduler in self._by_iteration():
                scheduler.step()
        if batch_idx + 1 == now:
            self.saved += self.full - now

    def _by_iteration(self) -> Iterator[Any]:
        schedulers = self.runner.param_schedulers or []
        for group in schedulers.values() if isinstance(schedulers, dict) else [schedulers]:
            yield from (scheduler for scheduler in group if not scheduler.by_epoch)
