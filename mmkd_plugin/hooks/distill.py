"""The runner's side of a distillation: what the model alone cannot know."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from ..datasets.indexed import index_training_data
from ..distillation.resume_check import compare_with_checkpoint
from ..facts import TrainingData
from .anchor_search import check_routes, search
from .engines import check_engine
from .stores import StoreWatch


def distillation_of(runner: Any) -> Any:
    """The ``distill`` child of a runner's model; None where the model is a plain one."""
    return getattr(_student(runner), 'distill', None)


def _student(runner: Any) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@HOOKS.register_module()
class DistillHook(Hook):
    """Tells losses of the training data and samples of their index, and compares a checkpoint to resume from.

    And searches for the next anchor of a :class:`Route` that asks for it, and opens the stores of teachers that have
    one.

    ``tools/train.py`` adds it by itself, and :class:`TeacherEvalHook` does the same; with another ``train.py`` and
    without that hook, name it in ``custom_hooks``. Twice is once.

    Raises:
        ValueError: Before a checkpoint is resumed from, if it was written with other learnable parts of losses; before
            training with FSDP or DeepSpeed, if something cannot be done there.
    """

    priority = 'ABOVE_NORMAL'  # before EMAHook copies the model
    _stores: StoreWatch | None = None

    def before_run(self, runner: Any) -> None:
        """Refuse what an engine cannot do, and tell of the training data, with an index where a loss needs it."""
        distillation = distillation_of(runner)
        loader = getattr(runner._train_loop, 'dataloader', None)  # None or a config in a test
        if distillation is None or loader is None:
            return
        check_engine(runner, distillation)  # before hooks that copy parameters
        distillation.data = TrainingData(loader.dataset)
        for term in distillation.terms:
            term.reserve(distillation.data)
        if distillation.needs('sample_idx'):
            index_training_data(runner._train_loop)
        self._stores = StoreWatch(runner, _student(runner))

    def before_train(self, runner: Any) -> None:
        """Tell what kind of run this is, and see that schedules and the stages of routes fit into it."""
        if (distillation := distillation_of(runner)) is not None:
            distillation.planner.iteration_based = isinstance(runner.train_loop, IterBasedTrainLoop)
            distillation.planner.check_run()
            check_routes(runner, distillation)

    def before_train_epoch(self, runner: Any) -> None:
        """Search for the next anchors of routes; see that stores are still right."""
        if distillation_of(runner) is not None:
            search(runner, _student(runner))
            if self._stores:
                self._stores.before_epoch()

    def after_load_checkpoint(self, runner: Any, checkpoint: Mapping[str, Any]) -> None:
        """Compare, if this is to resume."""
        distillation = distillation_of(runner)
        if distillation is not None and runner._resume:
            compare_with_checkpoint(distillation, checkpoint)
