"""Randomness that depends on the seed and the epoch only."""

from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..randomness import seed_everything


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds python, numpy and torch anew at the start of each epoch.

    mmengine does not keep random states in checkpoints. With this hook what an epoch draws
    (dropout, augmentation in the main process or in workers that start with the epoch) follows
    from the run's seed, the epoch and the rank, so that a resumed run repeats exactly what the
    uninterrupted one would have done. Workers that persist keep their own state: use
    ``persistent_workers=False`` where a resumed run must be exact.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Any) -> None:
        """Seed from (seed, epoch, rank)."""
        seed_everything((runner.seed or 0) * 1_000_003 + runner.epoch * 1_009 + get_rank())
