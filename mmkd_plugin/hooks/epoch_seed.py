"""Randomness that depends on the seed and the epoch only."""

from functools import partial
from typing import Any

from mmengine.dataset.utils import worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from ..datasets.indexed import index_training_data, owners, transforms_of
from ..options import check_bool, check_whole
from ..randomness import Replay, seed_everything


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds python, numpy and torch anew at the start of each epoch, here and in the data workers.

    mmengine keeps no random states in checkpoints, and seeds each new worker from the run's seed
    alone. With this hook what an epoch draws (dropout, augmentation) follows from the seed, the
    epoch and the rank, so that a resumed run repeats exactly what the uninterrupted one would
    have done, and no two epochs draw the same augmentations.

    Workers that persist over epochs keep states of their own: a run with
    ``persistent_workers=True`` is warned that it will not resume exactly, unless ``by_sample`` is set. An
    iteration-based loop is one epoch to mmengine, so there the seeds are set once, and resuming starts them again.

    Args:
        by_sample: What the pipeline draws for a sample follows from (seed, epoch, index of the sample): the same
            images with any number of workers and processes, persistent or not.
        views: With ``by_sample``: there are so many draws of the pipeline, and epoch e shows number e mod views, drawn
            from (view_seed, view, index); None: each epoch has its own, from the run's seed. A knowledge store sets it.
        view_seed: What views are drawn from, the same in runs with other seeds.

    Raises:
        ValueError: If an argument is of another kind, or there are views without ``by_sample``.
        RuntimeError: Before training: if ``by_sample`` meets a loop that is not epoch-based, or a transform that shows
            images which it remembers.
    """

    priority = 'VERY_HIGH'

    def __init__(self, by_sample: bool = False, views: int | None = None, view_seed: int = 0) -> None:
        self.by_sample = check_bool(by_sample, 'EpochSeedHook: by_sample')
        self.views = None if views is None else check_whole(views, 'EpochSeedHook: views', 1)
        self.view_seed = check_whole(view_seed, 'EpochSeedHook: view_seed')
        if views is not None and not by_sample:
            raise ValueError(f'EpochSeedHook: views={views} given without by_sample=True, which shows them')
        self._replay: Replay | None = None

    def before_train(self, runner: Any) -> None:
        """Put seeds around the samples; or warn where workers would keep their own random states."""
        if self.by_sample:
            loop = runner.train_loop
            if not isinstance(loop, EpochBasedTrainLoop):
                raise RuntimeError(
                    f'EpochSeedHook: by_sample=True needs epochs, which a {type(loop).__name__} does not count: every '
                    'pass over the data would show the same images'
                )
            data = index_training_data(loop)
            refuse_memories(data)
            seed = (runner.seed or 0) if self.views is None else self.view_seed
            self._replay = data.replay = Replay(seed)
        elif getattr(runner.train_dataloader, 'persistent_workers', False):
            runner.logger.warning(
                'EpochSeedHook: train_dataloader.persistent_workers=True, so a resumed run will draw other '
                'augmentations than an uninterrupted one; set it to False where runs must resume exactly, or by_sample '
                'of this hook to True'
            )

    def before_train_epoch(self, runner: Any) -> None:
        """Seed from (seed, epoch, rank)."""
        seed = (runner.seed or 0) * 1_000_003 + runner.epoch * 1_009
        seed_everything(seed + get_rank())
        if self._replay:
            self._replay.show(runner.epoch % self.views if self.views else runner.epoch)
        loader = runner.train_dataloader
        if loader.num_workers:
            # apart from the seeds of this process and of the neighbouring epochs
            loader.worker_init_fn = partial(
                worker_init_fn, num_workers=loader.num_workers, rank=get_rank(), seed=(seed + 500_000) % 2**31
            )


def refuse_memories(dataset: Any) -> None:
    """Mmdet's cached mixtures show images that this worker has met before."""
    for owner in owners(dataset.dataset):
        for transform in transforms_of(getattr(owner, 'pipeline', ())):
            if hasattr(transform, 'results_cache'):
                raise RuntimeError(
                    f'EpochSeedHook: by_sample=True cannot repeat {type(transform).__name__}, which mixes in what its '
                    'worker has met before: use the transform without a cache'
                )
