"""Runs as forks of a process that has imported what all of them import: short ones begin at once."""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from .pool import Ended, end_with_parent, peak_memory

_GRACE = 5.0  # seconds between asking a process to end and ending it


class Fork:
    """Stands for :class:`.pool.Command`, where a run takes no longer than the imports before it.

    The process that makes them has one thread, and has not touched a GPU: a fork of another could hang.

    Args:
        command: Python, its options, `tools/train.py`, and the arguments of that.
        log: Where its output goes, behind what is there.
        environment: Its environment; of threads, what ``OMP_NUM_THREADS`` says.
        train: What `tools/train.py` does with its arguments.

    Raises:
        RuntimeError: If this process uses a GPU.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        train: Callable[[Sequence[str]], None],
    ) -> None:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            raise RuntimeError('this process has used a GPU, and forks of it cannot: start each run by a Command')
        place = next(number for number, word in enumerate(command) if word.endswith('.py'))
        sys.stdout.flush()
        sys.stderr.flush()
        self._code: int | None = None
        self._memory = 0.0
        self._pid = os.fork()
        if self._pid == 0:
            _be(lambda: train(command[place + 1 :]), log, environment)
        _lead_group(self._pid)

    def ended(self) -> Ended | None:
        """None while it runs."""
        self._memory = max(self._memory, peak_memory(self._pid))
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return None if self._code is None else Ended(self._code, self._memory)

    def stop(self) -> None:
        """End it and its group."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.ended() is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, number)
            until = time.monotonic() + _GRACE
            while self.ended() is None and time.monotonic() < until:
                time.sleep(0.02)


def _lead_group(pid: int) -> None:
    """Both processes say so, since either may be first; Ctrl-C reaches the other alone."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)


def _be(run: Callable[[], None], log: Path, environment: Mapping[str, str]) -> None:
    """In the fork, which ends here."""
    code = 1
    try:
        _lead_group(0)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        end_with_parent()
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = os.fdopen(1, 'w', buffering=1, closefd=False)
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(int(environment.get('OMP_NUM_THREADS', '1')))
        run()
        code = 0
    except SystemExit as end:
        print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
