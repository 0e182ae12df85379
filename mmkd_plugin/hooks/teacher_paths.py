"""Whether training shows a teacher what it sees by itself, and reads of it what it computes by itself."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..datasets.indexed import owners
from ..detectors import example_rois
from ..randomness import keep_random_state
from ..teachers import Teacher

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
        batch = _draw(loader)
        if batch is None:
            return
        made = model.data_preprocessor(copy.deepcopy(batch), training=False)
        if not isinstance(made, dict) or not isinstance(made.get('inputs'), Tensor):  # a model of another kind
            return
        sizes = model.distill.sizes.of(made['inputs'], made.get('data_samples'))
        for teacher in model.distill.teachers.values():
            own = getattr(teacher.model, 'data_preprocessor', None)
            if own is not None:
                alone = own(copy.deepcopy(batch), training=False)['inputs']
                _compare_images(teacher, teacher.images(made['inputs'], sizes), alone)
                if alone.shape == made['inputs'].shape:
                    _compare_taps(teacher, made['inputs'], sizes, alone)


def _compare_images(teacher: Teacher, shown: Tensor, alone: Tensor) -> None:
    height, width = (min(a, b) for a, b in zip(shown.shape[-2:], alone.shape[-2:], strict=True))
    found = _difference(shown[..., :height, :width], alone[..., :height, :width])
    if found > _TOLERANCE:
        raise RuntimeError(
            f'training would show {teacher.name} other images than its own data_preprocessor makes: they differ by '
            f'{found:.3g} of their range. Give student and teacher data_preprocessors that differ in mean, std, '
            'channel order and pad_value at most'
        )


def _compare_taps(teacher: Teacher, images: Tensor, sizes: Any, alone: Tensor) -> None:
    rois = dict.fromkeys(teacher.branches, example_rois(images))
    taught = teacher(images, teacher.taps, sizes, rois)
    computed = teacher.alone(alone, rois)
    for tap, value in computed.items():
        if (found := _difference(taught[tap], value)) > _TOLERANCE:
            raise RuntimeError(
                f"training would read other values at '{tap}' of {teacher.name} than it computes by itself: they "
                f'differ by {found:.3g} of their range'
            )


def _difference(got: Tensor, expected: Tensor) -> float:
    got, expected = got.float(), expected.to(got.device).float()
    span = (expected.max() - expected.min()).clamp_min(1e-6)
    return float((got - expected).abs().max() / span)


def _draw(loader: Any) -> Any:
    """A few training samples as the loader would collate them, without touching sampler, workers or caches."""
    dataset = loader.dataset
    try:
        size = len(dataset)
    except TypeError:  # an iterable one, of which nothing can be taken that training would not miss
        return None
    picks = sorted({index * (size - 1) // max(_SAMPLES - 1, 1) for index in range(_SAMPLES)})
    with _pipelines_of_its_own(getattr(dataset, 'dataset', dataset)):
        return loader.collate_fn([dataset[index] for index in picks])


@contextmanager
def _pipelines_of_its_own(dataset: Any) -> Iterator[None]:
    """Copies of the pipelines, because some transforms remember images."""
    kept = [(owner, owner.pipeline) for owner in owners(dataset) if hasattr(owner, 'pipeline')]
    for owner, pipeline in kept:
        owner.pipeline = copy.deepcopy(pipeline)
    try:
        yield
    finally:
        for owner, pipeline in kept:
            owner.pipeline = pipeline
