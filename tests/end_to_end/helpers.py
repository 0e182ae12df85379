"""Runs through the real Runner on a few digits: in this process, in forks, or in a python of their own."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmkd_plugin.files.configs import config_path
from mmkd_plugin.launch import run_train
from tests.processes import ROOT, Forked, environment, forked, together

# small settings of any digits config: 40 training images, 100 test images
TINY = {
    'train_dataloader.dataset.per_class': 4,
    'val_dataloader.dataset.indices': list(range(0, 1000, 10)),
    'test_dataloader.dataset.indices': list(range(0, 1000, 10)),
    'train_dataloader.batch_size': 10,
    'randomness.seed': 3,
    'log_level': 'WARNING',
}


def tiny_options(epochs: int, **more: Any) -> dict[str, Any]:
    """What makes a digits config tiny."""
    return {
        **TINY,
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': epochs,
        'param_scheduler.total_steps': epochs,
        **more,
    }


def digits_cfg(work_dir: Path, epochs: int = 2, config: str = 'dkd_resnet.py', **more: Any) -> Config:
    """A tiny digits config."""
    cfg = Config.fromfile(config_path(config))
    cfg.merge_from_dict(tiny_options(epochs, **more))
    cfg.work_dir = str(work_dir)
    cfg.launcher = 'none'
    cfg.experiment_name = f'{work_dir.name}_{os.urandom(4).hex()}'
    return cfg


def runner_of(cfg: Config) -> Runner:
    """A Runner with a name of its own, so that several can live in one process."""
    cfg = cfg.copy()
    cfg.experiment_name = f'run_{os.urandom(4).hex()}'
    return Runner.from_cfg(cfg)


def options(values: dict[str, Any]) -> list[str]:
    """``--cfg-options`` of a command line."""
    return ['--cfg-options', *(f'{k}={str(v).replace(" ", "")}' for k, v in values.items())]


def parse(tool: str, *argv: Any) -> Any:
    """Arguments as a tool reads them; it finds `arguments.py` beside itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'tools')
        return runpy.run_path(str(ROOT / 'tools' / tool))['parse']([*map(str, argv)])


def train_here(config: Any, work_dir: Path, *more: Any, **values: Any) -> None:
    """``tools/train.py`` in this process, which shares nothing with forks; values as in ``options``."""
    values['experiment_name'] = f'run_{os.urandom(4).hex()}'
    with mock.patch.dict(os.environ):
        run_train(parse('train.py', ROOT / config, '--work-dir', work_dir, *more, *options(values)))


def command(*args: Any, check: bool = True, cwd: Path = ROOT, timeout: int = 300, **env: str) -> Any:
    """Run a fresh python with arguments: where the start itself is looked at; else ``forked`` is 5 seconds quicker."""
    done = subprocess.run(
        [sys.executable, *map(str, args)], cwd=cwd, env={**environment(), **env}, timeout=timeout,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout[-4000:]
    return done


__all__ = [
    'ROOT', 'TINY', 'Forked', 'command', 'digits_cfg', 'environment', 'forked', 'options', 'parse', 'runner_of',
    'tiny_options', 'together', 'train_here',
]  # fmt: skip
