"""Runs that end in the middle, in this process."""

import copy
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from tests.end_to_end.helpers import runner_of


class KilledError(Exception):
    """What ends the run."""


class Killer(Hook):
    """Ends a run before an iteration, counted from 0."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.iteration:
            raise KilledError


def keep_start(runner: Any) -> dict[str, Any]:
    """What the model's state dict is when training starts; empty until then."""
    start: dict[str, Any] = {}

    class Keeper(Hook):
        def before_train(self, runner: Any) -> None:
            start.update(copy.deepcopy(runner.model.state_dict()))

    runner.register_hook(Keeper(), 'VERY_LOW')
    return start


def kill(cfg: Config, iteration: int) -> None:
    """Train a config until an iteration; its checkpoints stay."""
    runner = runner_of(cfg)
    runner.register_hook(Killer(iteration), 'VERY_HIGH')
    with pytest.raises(KilledError):
        runner.train()


def resumed(cfg: Config) -> Any:
    """Train on from the last checkpoint to the end; the model."""
    cfg = cfg.copy()
    cfg.resume = True
    return runner_of(cfg).train()
