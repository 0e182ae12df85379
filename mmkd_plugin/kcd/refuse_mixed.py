"""Batches whose images are mixtures already are refused: a value would be credited to the wrong sample."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.dataset import Compose
from torch import nn

from ..datasets.indexed import owners, transforms_of
from ..networks import network_of

_WHY = 'so that a prediction belongs to no single sample: remove'


def refuse_mixtures(model: nn.Module, dataset: Any, when: str = '') -> None:
    """Refuse what mixes images now.

    Args:
        model: The student.
        dataset: The training data; transforms of every data set behind mmengine's wrappers are looked at.
        when: Put before the error, such as ``at epoch 3, ``.

    Raises:
        ValueError: If the data preprocessor or a transform mixes images.
    """
    if network_of(model).mixes_images:
        raise ValueError(
            f"KCDHook: {when}the student's data preprocessor mixes images (batch_augments / train_cfg.augments), "
            f'{_WHY} them'
        )
    for owner in owners(dataset):
        if name := _mixing_transform(getattr(owner, 'pipeline', ())):
            raise ValueError(f'KCDHook: {when}{name} mixes images in the pipeline of {type(owner).__name__}, {_WHY} it')


def refuse_planned_mixtures(hooks: Iterable[Any], model: nn.Module, epochs: int) -> None:
    """Refuse what hooks will switch on in later epochs.

    Args:
        hooks: The runner's.
        model: The student.
        epochs: Those of the run; what comes later, never comes.

    Raises:
        ValueError: If a hook's plan has batch augmentations or a pipeline that mix images.
    """
    for hook in hooks:
        for epoch, pipeline, augments in _plan(hook):
            if epoch > epochs:
                continue
            mixing = _mixing_transform(pipeline)
            if augments is not None and network_of(model).mixes_by_batch:
                mixing = 'batch_augments'
            if mixing:
                raise ValueError(
                    f'KCDHook: from epoch {epoch} on, {type(hook).__name__} switches to images that are mixed '
                    f'({mixing}), {_WHY} this from its plan'
                )


def _plan(hook: Any) -> Iterator[tuple[int, Any, Any]]:
    """Each switch: epoch, counted from 1, new pipeline and new batch augmentations."""
    schedule = getattr(hook, 'schedule', None)
    if isinstance(schedule, Mapping):  # mmpretrain's SwitchRecipeHook
        for epoch, recipe in schedule.items():
            if isinstance(recipe, Mapping):
                yield epoch, recipe.get('train_pipeline', ()), recipe.get('batch_augments')
    pipeline = getattr(hook, 'switch_pipeline', None)
    if isinstance(pipeline, (list, tuple)):  # mmdet's PipelineSwitchHook
        yield hook.switch_epoch + 1, Compose(pipeline), None


def _mixing_transform(pipeline: Any) -> str | None:
    """The name of a transform that takes in other images than its own."""
    for transform in transforms_of(pipeline):
        # mmdet's cached ones keep images that they saw; the others say which ones they want
        if hasattr(transform, 'results_cache') or hasattr(transform, 'get_indexes'):
            return type(transform).__name__
    return None
