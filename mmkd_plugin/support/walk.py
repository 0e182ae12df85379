"""Every config in a process of its own, with a limit of time and memory."""

import contextlib
import dataclasses
import datetime
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..experiments.pool import end_with_parent, peak_memory
from ..experiments.screen import Screen, duration
from .record import Record


class Limits(NamedTuple):
    """What one process may take.

    Attributes:
        seconds: Of wall time.
        memory: MiB that are resident.
        threads: Of the CPU.
    """

    seconds: float = 300.0
    memory: float = 12 * 1024
    threads: int = 1


@dataclasses.dataclass
class _Trial:
    config: str
    process: Any
    answer: Any
    begun: float
    at_work: bool = False  # the first one waits until others' packages are imported


def walk(
    configs: Sequence[str],
    root: Path,
    record: Record,
    logs: Path,
    jobs: int = 1,
    limits: Limits = Limits(),  # noqa: B008 (it never changes)
    screen: Screen | None = None,
) -> None:
    """Examine configs and keep what was found.

    Args:
        configs: Below ``root``.
        root: mmdet's configs.
        record: Where it is kept, with the versions and the date.
        logs: Folder for what each process printed, tracebacks among it.
        jobs: How many at once.
        limits: Of each.
        screen: Where to say what happens.
    """
    screen = screen or Screen()
    logs.mkdir(parents=True, exist_ok=True)
    context: Any = multiprocessing.get_context('forkserver')  # whose forks need not import it all again
    context.set_forkserver_preload(['mmengine.runner', 'mmdet.models', 'mmdet.structures'])
    waiting, running, took = list(configs), list[_Trial](), list[float]()
    about = versions()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_begin(context, waiting.pop(0), root, logs, limits))
            for trial in list(running):
                if (found := _found(trial, limits)) is None:
                    continue
                running.remove(trial)
                took.append(time.monotonic() - trial.begun)
                record.add(trial.config, {**found, **about})
                screen.say(f'{trial.config}: {summary(found)} ({duration(took[-1])})')
            screen.show(lambda: _state(len(configs), waiting, running, took, jobs))
            time.sleep(0.05)
    finally:
        for trial in running:
            trial.process.kill()


def _begin(context: Any, config: str, root: Path, logs: Path, limits: Limits) -> _Trial:
    answer, given = context.Pipe(duplex=False)
    log = logs / f'{config.replace("/", "_").removesuffix(".py")}.log'
    process = context.Process(target=_child, args=(given, str(root / config), str(log), limits.threads), daemon=True)
    process.start()
    given.close()
    return _Trial(config, process, answer, time.monotonic())


def _child(answer: Any, path: str, log: str, threads: int) -> None:
    """In the process: examine one config."""
    end_with_parent()
    answer.send(None)  # at work
    with open(log, 'w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    warnings.filterwarnings('ignore')
    import torch
    from mmengine.logging import MMLogger

    from .examine import examine

    torch.set_num_threads(threads)
    MMLogger.get_instance('support', log_level='WARNING')  # initialisation tells a line for each parameter
    answer.send(examine(path))


def _found(trial: _Trial, limits: Limits) -> dict[str, Any] | None:
    """What a process found, or how it ended; None while it runs."""
    ended, memory = trial.process.exitcode is not None, peak_memory(trial.process.pid)
    with contextlib.suppress(EOFError):
        while trial.answer.poll():
            found: dict[str, Any] | None = trial.answer.recv()
            if found is not None:
                trial.process.join()
                return found
            trial.begun, trial.at_work = time.monotonic(), True
    if ended:
        return {'not_run': f'the process ended with {trial.process.exitcode}'}
    late = trial.at_work and time.monotonic() - trial.begun > limits.seconds
    if not late and memory <= limits.memory:
        return None
    trial.process.kill()
    trial.process.join()
    return {
        'not_run': f'takes more than {limits.seconds:.0f} s' if late else f'takes more than {limits.memory:.0f} MiB'
    }


def _state(count: int, waiting: Sequence[str], running: Sequence[_Trial], took: Sequence[float], jobs: int) -> str:
    left = 'time left not known yet'
    if took:
        left = f'about {duration((len(waiting) + len(running) / 2) * sum(took) / len(took) / jobs)} left'
    names = ', '.join(trial.config for trial in running)
    return f'{count - len(waiting) - len(running)} of {count} done | {left} | {names}'


def summary(found: dict[str, Any]) -> str:
    """An entry in a line."""
    if 'not_run' in found:
        return f'not run: {found["not_run"]}'
    return ', '.join(f'{column} {verdict}' for column, (verdict, _) in found['columns'].items())


def versions() -> dict[str, str]:
    """What an entry was found with: the date, and the versions of the packages."""
    from importlib.metadata import version

    import mmdet

    from ..version import __version__

    packages = f'mmkd_plugin {__version__}, mmdet {mmdet.__version__}, torch {version("torch")}'
    return {'with': packages, 'date': datetime.date.today().isoformat()}
