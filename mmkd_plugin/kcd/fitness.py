"""Whether a run is one that can be condensed, before it begins."""

from typing import Any

from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from .observer import Observer
from .valuation import TABLES, ValueTable


def check_run(loop: Any, model: nn.Module) -> None:
    """Refuse loops without epochs and models without a teacher.

    Args:
        loop: The training loop.
        model: The student.

    Raises:
        RuntimeError: If it is one of these.
    """
    if not isinstance(loop, EpochBasedTrainLoop):
        raise RuntimeError(
            f'KCDHook: the training loop is a {type(loop).__name__}, expected EpochBasedTrainLoop '
            '(train_cfg=dict(by_epoch=True, max_epochs=...)): condensing shortens epochs'
        )
    if not hasattr(model, 'distill'):
        raise RuntimeError(
            f"KCDHook: the model is a {type(model).__name__} without a teacher; use model=dict(type='Distilled', ...)"
        )


def check_images_valued(observer: Observer, dropped_value: str, value: str) -> None:
    """Refuse for detectors what needs a prediction for each image.

    Args:
        observer: That of the values.
        dropped_value: How the dropped are valued.
        value: What is remembered of each sample.

    Raises:
        ValueError: If the value is one of RoIs, and is to be counted, or to be read without training on them.
    """
    if observer.branch is None:
        return
    if TABLES.get(value, ValueTable).counts_events:
        raise ValueError(
            f"KCDHook: value='{value}' counts what becomes of one prediction for each image, and this student predicts "
            'for RoIs, others in each epoch: take another value'
        )
    if dropped_value == 'pass':
        raise ValueError(
            "KCDHook: dropped_value='pass' asks the student without training it, and this student's values are those "
            "of RoIs that training samples: take 'aged' or 'last'"
        )
