"""The teacher's accuracy, measured before training and logged beside the student's."""

import math
from collections.abc import Mapping
from numbers import Number
from typing import Any

import torch
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import HOOKS

from ..options import check_mapping, check_number
from ..randomness import keep_random_state
from .distill import DistillHook
from .teacher_check import check_paths


@HOOKS.register_module()
class TeacherEvalHook(DistillHook):
    """Evaluates every teacher on the validation data, before training starts.

    And compares, on a few training samples, what training will read of it with what it computes by itself, because
    the evaluation goes another way: the teacher's own preprocessing and a whole pass.

    The teacher predicts as a whole model, with its own data preprocessor, on the images that the
    student's validation pipeline gives. Its metrics appear as ``teacher/accuracy/top1`` in the
    log line and the visualizer at every validation of the student. Each anchor of a :class:`Route`
    is evaluated, as ``teacher@8``.

    Args:
        at_least: Metrics (such as ``{'accuracy/top1': 70.0}``, in the evaluator's units) that a
            teacher must reach, of a route the last anchor; training does not start with a worse one.

    Raises:
        ValueError: If ``at_least`` is no dictionary of numbers.
        RuntimeError: Before training: if a teacher is worse than ``at_least``, if it knows the same
            classes in another order, if training would read something else of it than it computes, if the
            run has no validation, or if the model is not distilled.
    """

    # after RuntimeInfoHook has written the metrics, before LoggerHook reads them and before EMAHook copies the model
    priority = 'ABOVE_NORMAL'

    def __init__(self, at_least: Mapping[str, float] | None = None) -> None:
        bounds = {} if at_least is None else at_least
        bounds = check_mapping(bounds, 'TeacherEvalHook: at_least', "{'accuracy/top1': 70.0}")
        self.at_least = {
            key: check_number(bound, f'TeacherEvalHook: at_least[{key!r}]', low=-math.inf)
            for key, bound in bounds.items()
        }
        self.metrics: dict[str, float] = {}

    def before_train(self, runner: Any) -> None:
        """Evaluate, log, and compare with ``at_least``."""
        super().before_train(runner)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not hasattr(model, 'distill'):
            raise RuntimeError(
                f'TeacherEvalHook: the model is a {type(model).__name__} without teachers; use '
                "model=dict(type='Distilled', ...) or remove the hook"
            )
        if runner.val_loop is None:
            raise RuntimeError(
                'TeacherEvalHook needs val_dataloader, val_evaluator and val_cfg: add them or remove the hook'
            )
        for teacher in model.distill.teachers.values():
            if teacher.asleep and self.at_least:  # which only its weights can tell
                teacher.wake()
                teacher.get_ready(next(model.parameters()))
        check_paths(model, runner.train_loop.dataloader)
        loop = runner.val_loop
        classes = (getattr(loop.dataloader.dataset, 'metainfo', None) or {}).get('classes')
        for name, teacher in model.distill.teachers.items():
            if teacher.asleep:
                self._compare_classes(runner, name, teacher.classes, classes, model.distill.terms)
                runner.logger.info(f'TeacherEvalHook: {name} is not evaluated, its store has all that it says')
                continue
            if not isinstance(teacher.model, BaseModel):
                self._compare_classes(runner, name, teacher.classes, classes, model.distill.terms)
                runner.logger.warning(
                    f'TeacherEvalHook: {name} is a {type(teacher.model).__name__}, which has no '
                    'val_step; its accuracy is not measured'
                )
                continue
            for called in teacher.each():
                self._compare_classes(runner, called, teacher.classes, classes, model.distill.terms)
                with torch.no_grad(), keep_random_state(), teacher.as_a_whole():
                    for batch in loop.dataloader:
                        outputs = teacher.model.val_step(batch)
                        loop.evaluator.process(data_samples=outputs, data_batch=batch)
                    metrics = loop.evaluator.evaluate(len(loop.dataloader.dataset))
                numbers = {k: v for k, v in metrics.items() if isinstance(v, Number)}
                self.metrics.update({f'{called}/{k}': float(v) for k, v in numbers.items()})  # type: ignore[arg-type]
            self._check(called, metrics)  # of what it is in the end
        if not self.metrics:
            return
        values = ', '.join(f'{k}: {v:.4f}' for k, v in self.metrics.items())
        runner.logger.info(f'Before training, on the validation data: {values}')

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Put the teacher's metrics beside the student's."""
        for key, value in self.metrics.items():
            runner.message_hub.update_scalar(f'val/{key}', value)

    def _compare_classes(self, runner: Any, name: str, taught: Any, classes: Any, losses: Any) -> None:
        if taught is None or classes is None or list(taught) == list(classes):
            return
        if list(taught) == list(classes)[: len(taught)]:
            runner.logger.info(
                f'TeacherEvalHook: {name} knows the first {len(taught)} of {len(classes)} classes of the validation '
                'data and is evaluated on all of them, so that all it says of the others is wrong'
            )
            return
        first = next((i for i, pair in enumerate(zip(taught, classes, strict=False)) if pair[0] != pair[1]), 0)
        text = (
            f"TeacherEvalHook: {name}'s checkpoint was trained on {len(taught)} classes, the validation data has "
            f'{len(classes)}; class {first} is {taught[first]!r} there and {classes[first]!r} here'
        )
        reads_classes = any(loss.compares_logits or 'labels' in loss.needs for loss in losses)
        if reads_classes and sorted(taught) == sorted(classes):
            raise RuntimeError(f'{text}: the same classes in another order, so its logits would teach wrong ones')
        runner.logger.warning(f'{text}. Logits can be compared only if these mean the same; feature losses can')

    def _check(self, name: str, metrics: Mapping[str, Any]) -> None:
        for key, bound in self.at_least.items():
            if key not in metrics:
                raise RuntimeError(f"TeacherEvalHook: at_least names '{key}', the evaluator gives {sorted(metrics)}")
            if float(metrics[key]) < bound:
                raise RuntimeError(
                    f'TeacherEvalHook: {name} reaches {key} {float(metrics[key]):.4f} on the '
                    f'validation data, at_least={bound} was asked for. Wrong checkpoint, class '
                    'order, or preprocessing? Training was not started'
                )
