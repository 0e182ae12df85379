"""How good teacher and student are on some validation images, and what could be wrong with a teacher's input."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor

from ..hooks.teacher_check import check_paths, draw_samples
from ..networks import network_of
from ..randomness import keep_random_state
from .measured import Measured, TeacherFacts

#: The metrics that are compared by, the first that an evaluator gives.
USUAL = ('accuracy/top1', 'single-label/f1-score', 'pascal_voc/mAP', 'coco/bbox_mAP')
#: Normalisations that a teacher may have been trained with instead, as mean and std of pixels from 0 to 255.
INPUTS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    'mean=[0], std=[1]': ([0.0], [1.0]),
    'mean=[0], std=[255]': ([0.0], [255.0]),
    'mean=[127.5], std=[127.5]': ([127.5], [127.5]),
    "ImageNet's mean and std": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
}


@torch.no_grad()
def look_at_teachers(runner: Any, model: Any, measured: Measured, count: int) -> None:
    """Evaluate the student and its trained teachers, and try what may be wrong with these; nothing stays changed.

    Args:
        runner: With training begun.
        model: The distilled student.
        measured: Gets what is found.
        count: How many validation images.
    """
    with keep_random_state():
        try:
            check_paths(model, runner.train_loop.dataloader)
        except RuntimeError as error:
            measured.paths = str(error)
        if runner.val_loop is None:
            measured.untold.append('how good teacher and student are: the config has no validation')
            return
        loop = runner.val_loop
        size = int(loop.dataloader.batch_sampler.batch_size)
        batches = list(draw_samples(loop.dataloader, count, min(size, count)))
        evaluate = _Evaluation(loop.evaluator, batches)
        training = model.training
        model.eval()
        measured.student, _ = evaluate(model)
        model.train(training)
        measured.metric, measured.images = evaluate.metric, evaluate.images
        measured.classes = _number_of_classes(model)
        told = (getattr(loop.dataloader.dataset, 'metainfo', None) or {}).get('classes')
        for name, teacher in model.distill.teachers.items():
            facts = measured.teachers[name] = TeacherFacts(untrained=_untrained(runner.cfg, name))
            if not isinstance(teacher.model, BaseModel):
                measured.untold.append(f'how good {name} is: a {type(teacher.model).__name__} has no val_step')
                continue
            for _ in teacher.each():  # of a route, the last one
                facts.metric, outputs = evaluate(teacher.model)
            if facts.metric is None:
                measured.untold.append(f'how good {name} is: the evaluator gives no number')
                continue
            if teacher.classes and told and list(teacher.classes) != list(told)[: len(teacher.classes)]:
                facts.names = f'its checkpoint says {list(teacher.classes)[:5]}..., the data {list(told)[:5]}...'
            _look_for_order(facts, outputs, measured, name)
            _look_for_input(facts, teacher.model, evaluate, _pixels(batches))


class _Evaluation:
    """An evaluator on the same few batches, for one network after the other."""

    def __init__(self, evaluator: Any, batches: list[Any]) -> None:
        self._evaluator, self._batches = evaluator, batches
        self.metric, self.images = '', 0

    def __call__(self, model: Any, reverse: bool = False) -> tuple[float | None, list[Any]]:
        """The metric in %, and the predictions; with the channels of the images reversed, if asked."""
        found: list[Any] = []
        for batch in self._batches:
            shown = copy.deepcopy(batch)
            if reverse:
                shown['inputs'] = [image.flip(0) for image in shown['inputs']]
            outputs = model.val_step(shown)
            found += outputs
            self._evaluator.process(data_samples=outputs, data_batch=batch)
        self.images = len(found)
        for metric in self._evaluator.metrics:
            if hasattr(metric, 'img_ids'):  # COCO's would count all others as missed
                metric.img_ids = [output.img_id for output in found]
        metrics = self._evaluator.evaluate(self.images)
        numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, Number)}  # type: ignore[arg-type]
        if not numbers:
            return None, found
        self.metric = next((name for name in USUAL if name in numbers), next(iter(numbers)))
        value = numbers[self.metric]
        return (100 * value if 'mAP' in self.metric else value), found


def error_of(percent: float, images: int) -> float:
    """Standard error of a share of images, in points; of mAP a rough measure."""
    p = min(max(percent / 100, 1 / max(images, 1)), 1 - 1 / max(images, 2))
    return 100 * math.sqrt(p * (1 - p) / max(images, 1))


def _look_for_order(facts: TeacherFacts, outputs: Sequence[Any], measured: Measured, name: str) -> None:
    """Whether predictions fit the labels under another order of classes."""
    if not all(hasattr(output, 'pred_label') and hasattr(output, 'gt_label') for output in outputs):
        return
    classes = measured.classes or 0
    if not classes or len(outputs) < 5 * classes:
        text = (
            f"whether {name}'s classes are in another order: that takes {5 * classes or 'more'} images (--val-images)"
        )
        measured.untold.append(text)
        return
    facts.order_told = True
    from scipy.optimize import linear_sum_assignment

    table = torch.zeros(classes, classes)
    for output in outputs:
        said, right = int(output.pred_label[0]), int(output.gt_label[0])
        if said < classes and right < classes:
            table[said, right] += 1
    rows, columns = linear_sum_assignment(-table.numpy())
    pairs = [(int(a), int(b)) for a, b in zip(rows, columns, strict=True) if a != b and table[a, b] > 0]
    best = 100 * float(table[rows, columns].sum()) / len(outputs)
    facts.order, facts.order_metric = pairs, best


def _look_for_input(facts: TeacherFacts, model: Any, evaluate: _Evaluation, pixels: tuple[Any, Any] | None) -> None:
    """Whether it does clearly better with another normalisation."""
    preprocessor: Any = getattr(model, 'data_preprocessor', None)
    if not isinstance(getattr(preprocessor, 'mean', None), Tensor) or facts.metric is None:
        return
    tried = dict(INPUTS)
    if pixels is not None:
        own = [[round(float(v), 1) for v in values] for values in pixels]
        tried[f"the validation images' own, mean={own[0]}, std={own[1]}"] = own[0], own[1]
    best: tuple[str, float] | None = None
    if len(preprocessor.mean) == 3 and pixels is not None:
        value, _ = evaluate(model, reverse=True)
        best = ('channels in reversed order (RGB for BGR)', value) if value and value > facts.metric else None
    for name, (mean, std) in tried.items():
        if len(mean) not in (1, len(preprocessor.mean)):
            continue
        with _normalised(preprocessor, mean, std):
            value, _ = evaluate(model)
        if value is not None and value > (best[1] if best else facts.metric):
            best = name, value
    margin = max(2.0, 2 * error_of(facts.metric, evaluate.images))
    facts.other_input = best if best and best[1] > facts.metric + margin else None


@contextmanager
def _normalised(preprocessor: Any, mean: Sequence[float], std: Sequence[float]) -> Iterator[None]:
    kept = preprocessor.mean.clone(), preprocessor.std.clone()
    try:
        for buffer, values in ((preprocessor.mean, mean), (preprocessor.std, std)):
            buffer.copy_(torch.tensor(values).view(-1, 1, 1).expand_as(buffer))
        yield
    finally:
        preprocessor.mean.copy_(kept[0])
        preprocessor.std.copy_(kept[1])


def _pixels(batches: Sequence[Any]) -> tuple[Tensor, Tensor] | None:
    """Mean and std of the pixels by channel."""
    images = [image for batch in batches for image in batch['inputs']] if isinstance(batches[0], Mapping) else []
    if not images or not all(isinstance(image, Tensor) and image.ndim == 3 for image in images):
        return None
    flat = torch.cat([image.float().flatten(1) for image in images], 1)
    return flat.mean(1), flat.std(1)


def _number_of_classes(model: Any) -> int | None:
    return network_of(model).num_classes()


def _untrained(config: Any, name: str) -> bool:
    model = config.model
    spec = (
        model.get('teacher') if name == 'teacher' and model.get('teacher') else (model.get('teachers') or {}).get(name)
    )
    return isinstance(spec, Mapping) and bool(spec.get('untrained'))
