"""Whether training shows a teacher what it sees by itself, and reads of it what it computes by itself."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import DataLoader

from ..datasets.indexed import owners
from ..facts import Batch
from ..networks import example_rois
from ..randomness import keep_random_state
from ..teachers import Frozen

_SAMPLES = 4
# of the spread of the values; another normalisation, padding or layout is off by far more, rounding by far less
_TOLERANCE = 1e-2


@torch.no_grad()
def check_paths(model: Any, loader: Any) -> None:
    """Compare the two paths to every teacher on a few training samples.

    One goes as training does: student's data preprocessor, re-normalisation, a pass that ends at the last tap. The
    other is the teacher's own: its data preprocessor, a whole pass.

    Args:
        model: The distilled student.
        loader: The training data.

    Raises:
        RuntimeError: If images or tapped values differ by more than rounding.
    """
    with keep_random_state():
        try:
            batch = next(draw_samples(loader, _SAMPLES, _SAMPLES))
            made = model.data_preprocessor(copy.deepcopy(batch), training=False)
            images = made['inputs']
        except Exception as error:  # data sets, transforms and preprocessors are anybody's code
            text = f'what training reads of the teachers could not be compared with what they compute: {error!r}'
            print_log(text, 'current', logging.WARNING)
            return
        if not isinstance(images, Tensor):  # several views, or branches
            return
        sizes = model.distill.sizes.of(images, made.get('data_samples'))
        for teacher in model.distill.teachers.values():
            if teacher.asleep:
                continue
            for called in teacher.each():
                own = getattr(teacher.model, 'data_preprocessor', None)
                if own is not None:
                    alone = own(copy.deepcopy(batch), training=False)['inputs']
                    _compare_images(called, teacher.images(images, sizes), alone)
                    if alone.shape == images.shape:
                        with teacher.as_a_whole():  # in less precision, rounding would hide what is looked for
                            _compare_taps(teacher, called, images, sizes, alone)


def _compare_images(called: str, shown: Tensor, alone: Tensor) -> None:
    height, width = (min(a, b) for a, b in zip(shown.shape[-2:], alone.shape[-2:], strict=True))
    found = _difference(shown[..., :height, :width], alone[..., :height, :width])
    if found > _TOLERANCE:
        raise RuntimeError(
            f'training would show {called} other images than its own data_preprocessor makes: they differ by '
            f'{found:.3g} of their range. Give student and teacher data_preprocessors that differ in mean, std, '
            'channel order and pad_value at most'
        )


def _compare_taps(teacher: Frozen, called: str, images: Tensor, sizes: Any, alone: Tensor) -> None:
    rois = dict.fromkeys(teacher.branches, example_rois(images))
    taught = teacher.read(Batch.example(images, teacher.wanted.values(), sizes), teacher.wanted)
    computed = teacher.alone(alone, rois)
    for tap, value in computed.items():
        if (found := _difference(taught[tap], value)) > _TOLERANCE:
            raise RuntimeError(
                f"training would read other values at '{tap}' of {called} than it computes by itself: they "
                f'differ by {found:.3g} of their range'
            )


def _difference(got: Tensor, expected: Tensor) -> float:
    got, expected = got.float().nan_to_num(), expected.to(got.device).float().nan_to_num()  # masked logits are infinite
    span = (expected.max() - expected.min()).clamp_min(1e-6)
    return float((got - expected).abs().max() / span)


def draw_samples(loader: Any, count: int, size: int) -> Iterator[Any]:
    """Training samples as the loader would collate them, without touching its sampler, workers or caches.

    Args:
        loader: The training data.
        count: How many, spread evenly over all.
        size: Of a batch, at most.

    Yields:
        Batches.
    """
    picks = sorted({index * (len(loader.dataset) - 1) // max(count - 1, 1) for index in range(count)})
    yield from draw_at(loader, [picks[start : start + size] for start in range(0, len(picks), size)])


def draw_at(loader: Any, batches: list[list[int]]) -> Iterator[Any]:
    """The same, of given indices, batch by batch."""
    dataset = loader.dataset
    if loader.num_workers:  # not here: what a data set opens when it is first asked, workers would share
        names = ('collate_fn', 'worker_init_fn', 'multiprocessing_context')
        settings = {name: getattr(loader, name) for name in names}
        yield from DataLoader(dataset, batch_sampler=batches, num_workers=1, **settings)
        return
    with _pipelines_of_its_own(getattr(dataset, 'dataset', dataset)):
        for batch in batches:
            yield loader.collate_fn([dataset[index] for index in batch])


@contextmanager
def _pipelines_of_its_own(dataset: Any) -> Iterator[None]:
    """Copies of the pipelines, because some transforms remember images."""
    kept = [(owner, owner.pipeline) for owner in owners(dataset) if hasattr(owner, 'pipeline')]
    copies = [copy.deepcopy(pipeline) for _, pipeline in kept]
    try:
        for (owner, _), pipeline in zip(kept, copies, strict=True):
            owner.pipeline = pipeline
        yield
    finally:
        for owner, pipeline in kept:
            owner.pipeline = pipeline
