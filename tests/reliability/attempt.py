"""A training run in this process, and how far it came."""

import contextlib
import io
import logging
import os
import runpy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmkd_plugin.launch import run_train
from tests.end_to_end.helpers import tiny_options
from tests.processes import ROOT

#: What a user may see without having to read a traceback.
TOLD = (ValueError, TypeError, RuntimeError, FileNotFoundError, OSError, ModuleNotFoundError, SystemExit)


class Attempt(NamedTuple):
    """What became of a run.

    Attributes:
        error: What ended it, if something did.
        stage: Where that was.
        updates: Steps of the optimizer that were taken.
        log: What the run logged, and what was printed on the standard streams.
        said: The error and its causes, as text.
    """

    error: BaseException | None
    stage: str
    updates: int
    log: str

    @property
    def said(self) -> str:
        return '' if self.error is None else str(self.error)

    @property
    def kind(self) -> str:
        return '' if self.error is None else type(self.error).__name__


def attempt(
    config: str | Path, work_dir: Path, *argv: Any, hook: Callable[[Any], None] | None = None,
    changed: Mapping[str, Any] | None = None,
) -> Attempt:  # fmt: skip
    """Train as `tools/train.py` would, tiny.

    Args:
        config: Below ``configs/``, or a path.
        work_dir: Where the run writes.
        *argv: More of the command line.
        hook: Called with the runner before it trains.
        changed: Options of the config.
    """
    stage = ['the command line']
    updates = [0]
    options = {**tiny_options(2, log_level='INFO'), **(changed or {})}
    options['experiment_name'] = f'run_{os.urandom(4).hex()}'
    train, update, build = Runner.train, OptimWrapper.update_params, Runner.from_cfg

    def building(cfg: Any) -> Any:
        stage[0] = 'the build'
        return build(cfg)

    def training(runner: Any) -> Any:
        stage[0] = 'before training'
        if hook:
            hook(runner)
        return train(runner)

    def updating(*args: Any, **kwargs: Any) -> Any:
        updates[0] += 1
        return update(*args, **kwargs)

    def stepping(step: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(loop: Any, *args: Any, **kwargs: Any) -> Any:
            stage[0] = f'step {loop.runner.iter + 1}'
            return step(loop, *args, **kwargs)

        return stepped

    error: BaseException | None = None
    printed = io.StringIO()
    path = Path(config) if Path(config).is_absolute() else ROOT / 'configs' / config
    try:
        with contextlib.ExitStack() as stack:
            for what in (contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed)):
                stack.enter_context(what)
            stack.enter_context(mock.patch.dict(os.environ))
            stack.enter_context(mock.patch('sys.argv', ['train.py']))
            stack.enter_context(mock.patch('sys.path', [str(ROOT / 'tools'), *__import__('sys').path]))
            stack.enter_context(mock.patch.object(Runner, 'from_cfg', building))
            stack.enter_context(mock.patch.object(Runner, 'train', training))
            stack.enter_context(mock.patch.object(OptimWrapper, 'update_params', updating))
            for loop in (EpochBasedTrainLoop, IterBasedTrainLoop):
                stack.enter_context(mock.patch.object(loop, 'run_iter', stepping(loop.run_iter)))
            args = runpy.run_path(str(ROOT / 'tools/train.py'))['parse']([
                str(path), '--work-dir', str(work_dir), *map(str, argv)
            ])  # fmt: skip
            args.cfg_options = options
            run_train(args)
            stage[0] = 'the end'
    except (Exception, SystemExit) as caught:
        error = caught
    log = printed.getvalue() + ''.join(_logs(work_dir))
    _close(options['experiment_name'])
    return Attempt(error, stage[0], updates[0], log)


def _logs(work_dir: Path) -> Iterator[str]:
    for path in sorted(Path(work_dir).glob('*/*.log')):
        yield path.read_text(errors='replace')


def _close(name: str) -> None:
    """Of a run's log file, in a folder that may be removed."""
    logger = MMLogger._instance_dict.pop(name, None)
    for handler in list(logger.handlers) if logger else ():
        if isinstance(handler, logging.FileHandler):
            handler.close()
