"""A few steps of a distillation config, watched: on copies, without a trace in work folders."""

import argparse
import contextlib
import io
import logging
import os
import random
import tempfile
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..hooks import DistillHook, PeerEvalHook, TeacherEvalHook
from .measured import Measured
from .probe import EnoughError, Probe

_REFUSALS = (
    ValueError,
    TypeError,
    RuntimeError,
    FileNotFoundError,
    KeyError,
    AttributeError,
    ImportError,
    AssertionError,
)


def diagnose(args: argparse.Namespace) -> Measured:
    """What `tools/diagnose.py` does with its arguments.

    Args:
        args: ``config``, ``checkpoint``, ``steps``, ``images`` and ``cfg_options`` of the command line.

    Returns:
        What was measured; with what ended it, if something did.

    Raises:
        ValueError: If the config is of no distilled model.
        FileNotFoundError: If the checkpoint does not exist.
    """
    from ..launch import config_of_run

    measured = Measured(args.config, args.checkpoint)
    with tempfile.TemporaryDirectory(prefix='diagnose-') as folder:
        args = argparse.Namespace(**{**vars(args), 'work_dir': folder, 'launcher': 'none', 'local_rank': 0})
        config = config_of_run(args)
        if str(getattr(config.model.get('type'), '__name__', config.model.get('type'))) != 'Distilled':
            raise ValueError(
                f"config '{args.config}' trains a {config.model.get('type')}, expected a distillation config, whose "
                "model has the type 'Distilled'"
            )
        if args.checkpoint and not os.path.isfile(os.path.expanduser(args.checkpoint)):
            raise FileNotFoundError(f"checkpoint '{args.checkpoint}' does not exist (looked at "
                                    f'{os.path.abspath(args.checkpoint)})')  # fmt: skip
        _train(_quiet(config, args.checkpoint), measured, args.steps, args.images)
    return measured


def _quiet(config: Config, checkpoint: str | None) -> Config:
    """The config of a run that writes nothing but into its folder, and evaluates nothing by itself."""
    hooks = list(config.get('custom_hooks') or [])
    kinds = {hook['type'] for hook in hooks}
    dropped = ('TeacherEvalHook', TeacherEvalHook, 'PeerEvalHook', PeerEvalHook)
    config.custom_hooks = [hook for hook in hooks if hook['type'] not in dropped]
    if kinds & set(dropped) and not kinds & {'DistillHook', DistillHook}:
        config.custom_hooks.append(dict(type='DistillHook'))
    default = {key: hook for key, hook in (config.get('default_hooks') or {}).items() if key != 'visualization'}
    config.default_hooks = {**default, 'checkpoint': None, 'logger': None}
    config.visualizer = None
    config.log_level = 'ERROR'
    config.resume, config.load_from = False, checkpoint
    config.experiment_name = f'diagnose_{random.Random().getrandbits(32):08x}'
    return config


def _train(config: Config, measured: Measured, steps: int, images: int) -> None:
    probe, runner = Probe(measured, steps, images), None
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
            runner.register_hook(probe, priority='VERY_LOW')
            runner.train()
    except EnoughError:
        pass
    except FloatingPointError as error:
        measured.error = str(error)
    except _REFUSALS as error:
        if runner is not None and measured.steps:
            raise
        measured.refused = f'{type(error).__name__}: {error}'
    if measured.losses and runner is not None:
        if any('InTurn' in type(hook).__name__ for hook in runner.hooks):
            measured.untold.append("the steps of learners that take turns: what is shown is the last learner's")
        probe.finish(runner)
    _close(runner)


def _close(runner: Any) -> None:
    """Handles of log files in a folder that is about to vanish."""
    for handler in list(getattr(getattr(runner, 'logger', None), 'handlers', ())):
        if isinstance(handler, logging.FileHandler):
            handler.close()
