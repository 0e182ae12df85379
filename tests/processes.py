"""Commands in processes of their own that need not import torch and OpenMMLab once more.

A server process, started at the first command, has imported other people's packages, and nothing of ours: so a command
still imports ``mmkd_plugin`` by itself, or not at all. Each command is a fork of that server, which has one thread and
has never computed anything: 0.1 to 0.4 s instead of 5 to 7. Exit codes, signals, output and data workers are those
of a process as ever. Two things are shared by all forks and not by separate pythons: the order of sets (the hash seed),
and what happened at import. Runs that are compared bit for bit should therefore not both be forks, and one test of each
kind starts a python of its own (``helpers.command``).
"""

import ast
import contextlib
import gc
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
PARTS = ('datasets', 'engine', 'evaluation', 'models', 'structures', 'visualization')
IMPORTED_ONCE = [
    'torch.distributed', 'mmcv.ops', 'mmengine.runner', 'mmengine.visualization', 'matplotlib.pyplot',
    *(f'{package}.{part}' for package in ('mmpretrain', 'mmdet') for part in PARTS),
]  # fmt: skip

# where there is a GPU, imports look for it, and a fork of a process that has done so cannot use it
_context: Any = multiprocessing.get_context('spawn' if torch.cuda.is_available() else 'forkserver')
_context.set_forkserver_preload(IMPORTED_ONCE)


def environment() -> dict[str, str]:
    """The environment of a command in a test: one thread, this checkout importable."""
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'ignore'}


class Forked:
    """A script that runs in a fork.

    Attributes:
        stdout: Output and errors together, once it has ended.
        returncode: As of ``subprocess``; None while it runs.
    """

    def __init__(self, script: Any, *args: Any, cwd: Path = ROOT, **env: str) -> None:
        descriptor, self._output = tempfile.mkstemp(prefix='forked-', suffix='.log')
        os.close(descriptor)
        given = (str(script), [str(a) for a in args], str(cwd), {**environment(), **env}, self._output)
        self._process = _context.Process(target=_run, args=given)
        self._process.start()
        self.pid = self._process.pid
        self.stdout = ''

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        """SIGKILL, and wait."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 300) -> 'Forked':
        """Until it has ended."""
        self._process.join(timeout)
        late = self.returncode is None
        if late:
            self._process.kill()
            self._process.join()
        with contextlib.suppress(FileNotFoundError):  # read before
            self.stdout = Path(self._output).read_text(errors='replace')
            os.unlink(self._output)
        assert not late, f'still running after {timeout} s:\n{self.stdout[-4000:]}'
        return self

    def kill_when(self, path: Path, timeout: float = 200) -> None:
        """SIGKILL as soon as a file is there."""
        deadline = time.monotonic() + timeout
        while not path.exists():
            assert self.returncode is None, f'ended before it could be killed:\n{self.wait().stdout[-4000:]}'
            assert time.monotonic() < deadline
            time.sleep(0.002)
        self.kill()
        assert self.returncode == -signal.SIGKILL


class ForkedCommand:
    """Stands for ``mmkd_plugin.experiments.pool.Command``; ``started`` lists what was begun, in order."""

    started: list[list[str]] = []

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        assert list(command[:3]) == [sys.executable, '-W', 'ignore']
        self.started.append(list(command))
        self._log = log
        self._process = Forked(*command[3:], cwd=Path.cwd(), **environment)

    def ended(self) -> Any:
        from mmkd_plugin.experiments.pool import Ended  # here, since this file is what a fork begins with

        code = self._process.returncode
        if code is None:
            return None
        with self._log.open('a') as file:
            file.write(self._process.wait().stdout)
        return Ended(code, 100.0)

    def stop(self) -> None:
        self._process.kill()


def forked(script: Any, *args: Any, check: bool = True, cwd: Path = ROOT, timeout: float = 300, **env: str) -> Forked:
    """Run a python script in a fork, as ``helpers.command`` does in a python of its own."""
    done = Forked(script, *args, cwd=cwd, **env).wait(timeout)
    assert not check or done.returncode == 0, done.stdout[-4000:]
    return done


def free_port() -> int:
    """One that no other suite on this machine is using."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return int(free.getsockname()[1])


def together(script: Any, *args: Any, processes: int = 2) -> list[Forked]:
    """Run a script in several processes with the environment that ``torchrun`` gives them."""
    port = str(free_port())
    group = [
        Forked(script, *args, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes),
               LOCAL_WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        for rank in range(processes)
    ]  # fmt: skip
    for process in _as_they_end(group):
        if process.returncode:  # the others may wait for it for ever
            for other in group:
                if other.returncode is None:
                    other.kill()
    failed = [process.wait().stdout[-4000:] for process in group if process.returncode]
    assert not failed, '\n'.join(failed)
    return group


def _as_they_end(group: list[Forked]) -> Iterator[Forked]:
    running, deadline = list(group), time.monotonic() + 300
    while running and time.monotonic() < deadline:
        for process in [one for one in running if one.returncode is not None]:
            running.remove(process)
            yield process.wait()
        time.sleep(0.01)
    for process in running:
        process.wait(timeout=0)


def no_layout(set_attribute: Callable[[Any, str, Any], None]) -> None:
    """Leave out that yapf lays out the config's text, 0.15 s for each checkpoint that mmengine writes."""
    from mmengine.config import config
    from yapf.yapflib import yapf_api

    def parsed(text: str, **_: Any) -> tuple[str, bool]:
        ast.parse(text)  # as yapf does
        return text, True

    for module in (yapf_api, config):  # one stack imports it late, the other at once
        set_attribute(module, 'FormatCode', parsed)


def _run(script: str, args: list[str], cwd: str, env: dict[str, str], output: str) -> None:
    """In the fork: what python does with a script."""
    import numpy as np

    gc.freeze()  # as in conftest.py
    no_layout(setattr)

    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = [script, *args]
    sys.path[:0] = [str(Path(script).parent.resolve()), str(ROOT)]
    warnings.simplefilter('ignore')
    np.random.seed()  # a python of its own would start anywhere
    code: Any = 0
    try:
        runpy.run_path(script, run_name='__main__')
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    if torch.distributed.is_initialized():  # its end waits for threads of gloo, once in thousands of times for ever
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if isinstance(code, str) else code or 0)
    raise SystemExit(1 if isinstance(code, str) else code or 0)
