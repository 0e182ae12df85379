"""What each loss contributes to the student's gradient, logged now and then while it trains."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ..distillation.shares import gradient_shares
from ..options import check_whole


@HOOKS.register_module()
class DiagnoseHook(Hook):
    """Logs each loss's share of the gradient, and its angle to the task's, every so many iterations.

    In the log as ``share/loss_kd`` (its gradient's norm divided by the sum of the norms of all losses and the task) and
    ``cosine/loss_kd`` (of the angle to the task's gradient); those of a peer as ``share/peer/loss_x``. mmengine's
    ``LogProcessor`` keeps the last value between two measurements.

    An iteration that is measured goes back through the student once more for each loss, and once for the task; all
    others cost nothing. With several processes each measures its own batch, and the first logs. Activation checkpoints
    of the reentrant kind refuse it: then it says so once, and rests.

    Args:
        interval: Iterations from one measurement to the next. With 500, one or two losses cost well under 1 %.

    Raises:
        ValueError: If the interval is no whole number >= 1.
        RuntimeError: Before training, if the model is not distilled.
    """

    priority = 'NORMAL'  # after RuntimeInfoHook, before LoggerHook

    def __init__(self, interval: int = 500) -> None:
        self.interval = check_whole(interval, 'DiagnoseHook: interval', 1)
        self._rests = False
        self._runner: Any = None

    def before_train(self, runner: Any) -> None:
        """See that there is something to look at."""
        if not hasattr(_model(runner), 'distill'):
            raise RuntimeError(
                f'DiagnoseHook: the model is a {type(_model(runner)).__name__} without distillation losses; use '
                "model=dict(type='Distilled', ...) or remove the hook"
            )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Listen, if this iteration is measured."""
        if not self._rests and self.every_n_train_iters(runner, self.interval):
            self._runner = runner
            _model(runner).distill.listeners.append(self._measure)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Listen no more."""
        self._runner = None
        listeners = _model(runner).distill.listeners
        if self._measure in listeners:
            listeners.remove(self._measure)

    def _measure(self, losses: Mapping[str, Any]) -> None:
        runner = self._runner
        try:
            shares = gradient_shares(_model(runner), losses, scale_of(runner))
        except RuntimeError as error:
            if 'use_reentrant' not in str(error):
                raise
            self._rests = True
            runner.logger.warning('DiagnoseHook: losses cannot be differentiated one by one through reentrant '
                                  'activation checkpoints (with_cp=True); it measures nothing')  # fmt: skip
            return
        for share in shares:
            name = share.name if share.learner == 'student' else f'{share.learner}/{share.name}'
            runner.message_hub.update_scalar(f'train/share/{name}', share.share)
            if share.cosine is not None and share.name != 'task':
                runner.message_hub.update_scalar(f'train/cosine/{name}', share.cosine)


def scale_of(runner: Any) -> float:
    """The factor of its gradient scaler; 1 where there is none."""
    scaler: Any = getattr(runner.optim_wrapper, 'loss_scaler', None)
    return float(scaler.get_scale()) if hasattr(scaler, 'get_scale') else 1.0


def _model(runner: Any) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
