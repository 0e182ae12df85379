"""Several runs at once, each a process of its own; one that fails stops no other."""

import contextlib
import ctypes
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from .runs import Result, Run
from .screen import Screen, duration

_GRACE = 5.0  # seconds between asking a process to end and ending it
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP are KeyboardInterrupts, unless they are handled already; after it, what they were.

    A handler that stays is inherited by every later fork, and a worker of a ``multiprocessing.Pool`` that it keeps from
    ending is waited for without end.
    """
    ends = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    try:
        for number in ends:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number in ends:
            signal.signal(number, signal.SIG_DFL)


class Ended(NamedTuple):
    """How a process ended: its exit code (negative: the signal that ended it), and the most memory it had, in MiB."""

    code: int
    memory: float


class Process(Protocol):
    """What a pool needs of a process."""

    def ended(self) -> Ended | None:
        """None while it runs."""

    def stop(self) -> None:
        """End it, and whatever it has started."""


class Command:
    """A process that ends with this one, however this one ends.

    Args:
        command: What to run.
        log: Where its output goes, behind what is there.
        environment: Its environment.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open('ab') as file:
            # a group of its own: Ctrl-C reaches this process alone, which then ends the others in order
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip
        self._memory = 0.0

    def ended(self) -> Ended | None:
        """None while it runs."""
        # not getrusage: its peak begins with what this process had when it forked
        self._memory = max(self._memory, peak_memory(self._process.pid))
        code = self._process.poll()
        return None if code is None else Ended(code, self._memory)

    def stop(self) -> None:
        """End it and its group."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            until = time.monotonic() + _GRACE
            while self.ended() is None and time.monotonic() < until:
                time.sleep(0.02)


def peak_memory(process: int) -> float:
    """What was resident of it at most, in MiB; 0 if it has ended."""
    with contextlib.suppress(OSError):
        found = re.search(r'VmHWM:\s+(\d+) kB', Path(f'/proc/{process}/status').read_text())
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


def end_with_parent() -> None:
    """In the child: else it would train on, unseen, where its parent was killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Pool:
    """Trains runs that are not finished.

    Args:
        script: `tools/train.py`.
        options: As on its command line, behind ``--cfg-options``.
        jobs: How many runs at once. Where several GPUs are visible, each of these places has one of them.
        threads: CPU threads of each.
        screen: Where to say what happens.
        start: Makes a process of a command, a log and an environment; default: :class:`Command`.
    """

    def __init__(
        self,
        script: Path,
        options: Sequence[str] = (),
        jobs: int = 1,
        threads: int = 1,
        screen: Screen | None = None,
        start: Callable[[Sequence[str], Path, Mapping[str, str]], Process] | None = None,
    ) -> None:
        self._script = script
        self._options = list(options)
        self._jobs = jobs
        self._threads = threads
        self._screen = screen or Screen()
        self._start = start or Command

    def train(
        self, runs: Sequence[Run], parameters: Mapping[str, Mapping[str, int]], after: Callable[[Run], None]
    ) -> None:
        """Train all that are not finished, in order.

        Args:
            runs: All runs, the finished ones too: how long these took tells how long others will.
            parameters: Counts by name of the entry, see :class:`.Result`.
            after: Called with each run that has ended, well or not.

        Raises:
            KeyboardInterrupt: If this process is; then the others are ended first, and each can be resumed.
        """
        waiting = [run for run in runs if run.result is None]
        places: dict[int, _Training | None] = dict.fromkeys(range(self._jobs))
        try:
            while waiting or any(places.values()):
                for place, training in places.items():
                    if training is None and waiting:
                        places[place] = self._begin(waiting.pop(0), place)
                    elif training is not None and (ended := training.process.ended()):
                        places[place] = None
                        if self._settle(training, ended, parameters.get(training.run.entry.name, {})):
                            after(training.run)
                        else:
                            waiting.insert(0, training.run)
                self._screen.show(lambda: self._state(runs, waiting, [t for t in places.values() if t]))
                time.sleep(0.1)
        finally:
            for training in places.values():
                if training is not None:
                    training.process.stop()

    def _begin(self, run: Run, place: int) -> '_Training':
        checkpoints = run.checkpoints()
        command = [
            sys.executable, '-W', 'ignore', str(self._script), run.entry.path, '--work-dir', str(run.folder),
            # without a checkpoint it would overrule the config's load_from
            *(['--resume'] if checkpoints else []),
            '--cfg-options', *self._options, f'randomness.seed={run.seed}',
        ]  # fmt: skip
        run.begin()
        self._screen.say(f'{run}: ' + (f'goes on from {checkpoints[-1].name}' if checkpoints else 'begins'))
        process = self._start(command, run.log, self._environment(place))
        return _Training(run, process, time.monotonic(), bool(checkpoints))

    def _environment(self, place: int) -> dict[str, str]:
        threads = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), str(self._threads))
        return {**os.environ, **threads, **gpu_of(place, os.environ.get('CUDA_VISIBLE_DEVICES'))}

    def _settle(self, training: '_Training', ended: Ended, parameters: Mapping[str, int]) -> bool:
        """Write down how a run ended; False if it has to go on."""
        run, seconds = training.run, time.monotonic() - training.started
        try:
            if ended.code:
                raise ValueError(_cause(run.log, ended.code))
            metrics, step_time, gpu = run.measured()
        except ValueError as error:
            checkpoints = run.checkpoints()
            if not ended.code and training.resumed and checkpoints:
                # killed between its last checkpoint and its last validation, which mmengine does not make up for
                self._screen.say(f'{run}: lacks its last validation, goes on from the checkpoint before')
                checkpoints[-1].unlink()
                return False
            run.fail(str(error))
            self._screen.say(f'{run}: FAILED after {duration(seconds)}: {error}; the log is {run.log}')
            return True
        memory = ended.memory if gpu is None else gpu
        whole = None if training.resumed else seconds
        run.finish(
            Result(metrics, step_time, memory, gpu is not None, whole, self._jobs, self._threads, dict(parameters))
        )
        # losses of the last validation, or a teacher's metrics, are left to the table
        values = ', '.join(f'{key} {value:.4g}' for key, value in list(metrics.items())[:1])
        self._screen.say(f'{run}: done in {duration(seconds)}, {values}')
        return True

    def _state(self, runs: Sequence[Run], waiting: Sequence[Run], training: Sequence['_Training']) -> str:
        done = sum(run.result is not None for run in runs)
        failed = sum(run.failure is not None for run in runs)
        known: dict[str, list[float]] = {}
        for run in runs:
            if run.result and run.result.seconds:
                known.setdefault(run.entry.name, []).append(run.result.seconds)
        now = time.monotonic()
        left = seconds_left(
            known, [run.entry.name for run in waiting], [(t.run.entry.name, now - t.started) for t in training],
            self._jobs,
        )  # fmt: skip
        parts = [
            f'{done} of {len(runs)} done' + (f', {failed} failed' if failed else ''),
            'time left not known yet' if left is None else f'about {duration(left)} left',
            *(f'{t.run} {progress(t.run.log)}'.rstrip() for t in training),
        ]
        return ' | '.join(parts)


class _Training(NamedTuple):
    run: Run
    process: Process
    started: float
    resumed: bool


def gpu_of(place: int, visible: str | None) -> dict[str, str]:
    """What makes a process see one GPU of several.

    Args:
        place: From 0.
        visible: ``CUDA_VISIBLE_DEVICES``.
    """
    if torch.cuda.device_count() < 2:
        return {}
    devices = visible.split(',') if visible else [str(i) for i in range(torch.cuda.device_count())]
    return {'CUDA_VISIBLE_DEVICES': devices[place % len(devices)]}


def seconds_left(
    known: Mapping[str, Sequence[float]], waiting: Sequence[str], training: Sequence[tuple[str, float]], jobs: int
) -> float | None:
    """How long all runs will take, told by those that are finished.

    Args:
        known: Seconds of finished runs, by name; another name will take as long as their mean.
        waiting: Names of the runs that have not begun.
        training: Names of those that have, and how long they have been at it.
        jobs: How many there are at once.

    Returns:
        Seconds; None if no run is finished.

    Example:
        >>> seconds_left({'a': [10, 20]}, ['a', 'b', 'b'], [('a', 5), ('b', 40)], jobs=2)
        27.5
    """
    if not known:
        return None
    usual = statistics.mean(seconds for one in known.values() for seconds in one)
    expected = {name: statistics.mean(seconds) for name, seconds in known.items()}
    rests = [max(expected.get(name, usual) - elapsed, 0.0) for name, elapsed in training]
    return max([(sum(rests) + sum(expected.get(name, usual) for name in waiting)) / jobs, *rests])


def progress(log: Path) -> str:
    """How far a run says it is, by the last line of its log that does: ``epoch 3, eta 0:00:12``."""
    found = re.findall(r'(Epoch|Iter)\(train\)\s+\[\s*(\d+)(?:/\d+)?\].*?eta: (.*?)  ', _tail(log))
    if not found:
        return ''
    what, number, eta = found[-1]
    return f'{"epoch" if what == "Epoch" else "iteration"} {number}, eta {eta}'


def _cause(log: Path, code: int) -> str:
    """Why a process ended: what it said last."""
    if code < 0:
        return f'ended by signal {signal.Signals(-code).name}'
    lines = [line.rstrip() for line in _tail(log).splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r'[\w.]*(Error|Exception|Interrupt)\b', line)]
    return ([*lines[-1:], *errors[-1:]] or [f'exit code {code}'])[-1].strip()[:300]


def _tail(log: Path, size: int = 8192) -> str:
    try:
        with log.open('rb') as file:
            file.seek(max(file.seek(0, os.SEEK_END) - size, 0))
            return file.read().decode(errors='replace')
    except FileNotFoundError:
        return ''
