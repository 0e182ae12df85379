"""The metrics of those that learn beside the student, at every validation."""

import copy
from collections.abc import Mapping
from numbers import Number
from pathlib import PurePath
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner.amp import autocast

from ..teachers import Peer
from .distill import distillation_of

#: Where metrics write files, if they are asked to.
_FILES = ('outfile_prefix', 'out_file_path')


@HOOKS.register_module()
class PeerEvalHook(Hook):
    """Evaluates every peer on the batches that the student is validated on, and logs ``peer/accuracy/top1`` beside its.

    A peer predicts as a plain model, with its own data preprocessor; its metrics are copies of those of
    ``val_evaluator``. With EMAHook, averaged weights are evaluated, as the student's are. Files that a metric writes
    get the peer's name. ``tools/train.py`` adds it where a teacher is a ``Peer``; with another ``train.py``, name it in
    ``custom_hooks``.

    Raises:
        RuntimeError: Before training, if there are no peers, or the run has no validation.
    """

    # after RuntimeInfoHook has written the metrics, before LoggerHook reads them and EMAHook takes its weights away
    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._evaluators: dict[str, Evaluator] = {}

    def before_train(self, runner: Any) -> None:
        """See that there is something to do."""
        if not _peers(runner):
            raise RuntimeError("PeerEvalHook: no teacher is a dict(type='Peer', ...): remove the hook")
        if runner.val_loop is None:
            raise RuntimeError(
                'PeerEvalHook needs val_dataloader, val_evaluator and val_cfg: add them or remove the hook'
            )

    def before_val_epoch(self, runner: Any) -> None:
        """Make evaluators of their own, which share what the student's has read of the data."""
        self._evaluators = {name: _copy(runner.val_loop.evaluator, name) for name in _peers(runner)}

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Let the peers predict; what the student predicted for the batch stays as it is."""
        for name, peer in _peers(runner).items():
            with autocast(enabled=getattr(runner.val_loop, 'fp16', False)):
                predicted = peer.val_step(copy.deepcopy(data_batch))
            self._evaluators[name].process(data_samples=predicted, data_batch=data_batch)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Log, beside the student's."""
        for name, evaluator in self._evaluators.items():
            for key, value in evaluator.evaluate(len(runner.val_loop.dataloader.dataset)).items():
                if isinstance(value, Number):
                    runner.message_hub.update_scalar(f'val/{name}/{key}', float(value))  # type: ignore[arg-type]


def _peers(runner: Any) -> dict[str, Any]:
    """By name, their networks in the runner's model."""
    distillation = distillation_of(runner)
    sources = {} if distillation is None else distillation.sources
    return {name: source.model for name, source in sources.items() if isinstance(source, Peer)}


def _copy(evaluator: Evaluator, name: str) -> Evaluator:
    """One that collects results of its own."""
    twin = copy.copy(evaluator)
    twin.metrics = [copy.copy(metric) for metric in evaluator.metrics]
    for metric in twin.metrics:
        metric.results = []
        for key in _FILES:
            if isinstance(given := getattr(metric, key, None), str):
                path = PurePath(given)
                setattr(metric, key, str(path.with_name(f'{path.stem}_{name}{path.suffix}')))
    return twin
