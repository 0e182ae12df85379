"""What stored teachers must know of a run, and what is refused because a store could not be exact."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.runner import EpochBasedTrainLoop

from ..datasets.indexed import IndexedDataset, index_training_data, owners
from ..kcd.dataset import CondensedDataset
from ..randomness import Replay, keep_random_state
from ..store import identity_of_data, identity_of_pipeline
from ..store.identity import pipeline_of
from ..teachers import Stored
from ..teachers.stored import Surroundings
from .epoch_seed import EpochSeedHook, refuse_memories
from .teacher_check import draw_at

_SAMPLES = 4


def stored_teachers(distillation: Any) -> dict[str, Stored]:
    """Those of the sources that have a store, by name."""
    return {name: source for name, source in distillation.sources.items() if isinstance(source, Stored)}


class StoreWatch:
    """Opens the stores of a run, and sees that what they were opened for stays.

    Args:
        runner: Its training loop is built, its weights are not loaded.
        student: The distilled model.

    Raises:
        ValueError: If the run shows images that no store can keep apart.
        RuntimeError: If the run has no epochs, or no hook to draw views.
    """

    def __init__(self, runner: Any, student: Any) -> None:
        self._student, self._loop = student, runner._train_loop
        self._stored = stored_teachers(student.distill)
        self._pipelines: list[Any] = []
        if not self._stored:
            return
        told = {(source.options.views, source.options.seed) for source in self._stored.values()}
        if len(told) > 1:
            raise ValueError(f'stores of several teachers have (views, seed) {sorted(told)}, expected the same for all')
        (views, seed) = told.pop()
        if not isinstance(self._loop, EpochBasedTrainLoop):
            raise RuntimeError(
                f'a store needs epochs, each of which shows a view, and a {type(self._loop).__name__} counts none: use '
                'train_cfg=dict(by_epoch=True, ...)'
            )
        self._refuse_batches()
        _refuse_switches(runner.hooks)
        _set_views(runner.hooks, views, seed)
        data = index_training_data(self._loop)
        refuse_memories(data)
        images = self._look(data, seed)
        surroundings = Surroundings(
            identity_of_data(data.dataset),
            identity_of_pipeline(data.dataset),
            images,
            min(views, self._loop.max_epochs),
        )
        self._pipelines = _pipelines(data)
        for source in self._stored.values():
            source.open(surroundings)

    def before_epoch(self) -> None:
        """See that nobody has switched pipelines or augmentations, and that KCD mixes nothing.

        Raises:
            ValueError: If somebody has.
        """
        if not self._stored:
            return
        data = self._loop.dataloader.dataset
        if isinstance(data, CondensedDataset) and data.mix is not None:
            raise ValueError(
                'KCDHook mixes images into each other, another mixture in each round, which a store cannot know: say '
                'mixing=None, or drop store'
            )
        self._refuse_batches()
        if _pipelines(data) != self._pipelines:
            raise ValueError(
                'the pipeline of the training data is another one than when the store was opened: remove the hook that '
                'switches it, or drop store'
            )
        observed = self._student.distill.observe_taught
        if some := [name for name in observed if name in self._stored and self._stored[name].options.keep != 'all']:
            raise ValueError(
                f'KCDHook reads the class scores of {some[0]}, whose store has '
                f'keep={self._stored[some[0]].options.keep}: '
                "say keep='all', or value='entropy'"
            )

    def _refuse_batches(self) -> None:
        if getattr(getattr(self._student, 'data_preprocessor', None), 'batch_augments', None) is not None:
            raise ValueError(
                "the student's data preprocessor changes images by the batch that they are in (batch_augments, "
                'train_cfg.augments: Mixup, CutMix, random sizes), which a store cannot know: remove them, or drop '
                'store'
            )

    def _look(self, data: IndexedDataset, seed: int) -> tuple[int, ...]:
        """(C, H, W) of the images; a few are drawn, and one of them again after the others."""
        picks = sorted({index * (len(data) - 1) // (_SAMPLES - 1) for index in range(_SAMPLES)})
        before, data.replay = data.replay, Replay(seed)
        try:
            with torch.no_grad(), keep_random_state():
                batches = list(draw_at(self._loop.dataloader, [[pick] for pick in [*picks, picks[0]]]))
                made = [self._student.data_preprocessor(copy.deepcopy(batch), False)['inputs'] for batch in batches]
        finally:
            data.replay = before
        shapes = sorted({tuple(images.shape[1:]) for images in made})
        if len(shapes) > 1:
            raise ValueError(
                f'the pipeline makes images of several sizes, {shapes[0]} and {shapes[1]}, which are padded by the '
                'batch that '
                'they are in, and padding shows in what a network computes: a store needs one size for all'
            )
        if not torch.equal(made[0], made[-1]):
            raise ValueError(
                'the pipeline gave another image when the same view of it was drawn again: a transform remembers '
                'something, '
                'or draws from a generator of its own. A store needs one that draws from python, numpy or torch'
            )
        return shapes[0]


def _pipelines(data: Any) -> list[Any]:
    """Objects; kept, so that no other can have their places."""
    return [pipeline_of(owner) for owner in owners(data.dataset)]


def _set_views(hooks: Any, views: int, seed: int) -> None:
    """Let EpochSeedHook draw the views of the store."""
    hook = next((hook for hook in hooks if isinstance(hook, EpochSeedHook)), None)
    if hook is None:
        raise RuntimeError(
            "a store has views=... that somebody must draw: add dict(type='EpochSeedHook', by_sample=True, "
            f'views={views}) to '
            'custom_hooks'
        )
    own, wanted = (hook.views, hook.view_seed), (views, seed)
    if hook.views is not None and own != wanted:
        raise ValueError(
            f'EpochSeedHook has (views, view_seed) {own}, and the store {wanted}: say the same, or leave them out'
        )
    hook.by_sample, hook.views, hook.view_seed = True, views, seed


def _refuse_switches(hooks: Any) -> None:
    for hook in hooks:
        schedule = getattr(hook, 'schedule', None)
        recipes = [r for r in schedule.values() if isinstance(r, Mapping)] if isinstance(schedule, Mapping) else []
        switched = any(recipe.get('train_pipeline') or recipe.get('batch_augments') for recipe in recipes)
        if switched or getattr(hook, 'switch_pipeline', None) is not None or hasattr(hook, 'skip_type_keys'):
            raise ValueError(
                f'{type(hook).__name__} switches the pipeline in the course of training, so that a view would be '
                'two: remove it, or drop store'
            )
