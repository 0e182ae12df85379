"""Makes, or finishes, an environment in which this checkout runs: torch, an OpenMMLab stack with mmcv's ops, the tools.

    python3 tools/setup_env.py --stack onedl --env .venv

`make env` calls it. It needs nothing but the standard library, and may be stopped and run again at any time.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / '.setup_env'  # logs, and the lock that keeps two runs apart
PY = '{}.{}'.format(*sys.version_info)
TORCH = '2.12.0'
TORCHVISION = {'2.12.0': '0.27.0'}
BUILD_TOOLS = ['setuptools>=77,<82', 'wheel', 'ninja', 'psutil']
OURS = ['runtime', 'demo', 'tests']  # requirement files of every environment, whatever its stack
STEPS = 4
LAYOUT = '4'  # another one makes existing environments incomplete
# mmcv installs without ops as happily as with them, so only an import tells. mmengine wants distutils.
CHECK = (
    'import distutils.errors, cv2, torch, torchvision, mmengine, mmcv._ext, mmcv.ops, mmdet, mmpretrain, mlxtend, '
    'mmkd_plugin.version'
)


class SetupError(Exception):
    """Something that the user has to mend; the message says how."""


def requirements(name: str) -> list[str]:
    """Returns the lines of `requirements/<name>.txt` without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in map(str.strip, lines) if line and not line.startswith('#')]


def canonical(requirement: str) -> str:
    """Returns the name of the distribution in a requirement, in the form in which names are compared."""
    return re.sub('[-_.]+', '-', re.split(r'[^\w.-]', requirement, maxsplit=1)[0]).lower()


def digest(*parts: str, files: list[str] | None = None) -> str:
    """Returns a hash of everything that determines an environment.

    The checkout's path is in it, since scripts and links inside an environment hold absolute paths.
    """
    lines = [line for name in files or [] for line in requirements(name)]
    return hashlib.sha256('\n'.join([LAYOUT, str(ROOT), PY, *BUILD_TOOLS, *parts, *lines]).encode()).hexdigest()


def wheel_dir(torch: str, ops: str) -> Path:
    """Returns where mmcv wheels for this python, this torch and these ops are kept."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return cache / 'mmkd_plugin' / 'wheels' / f'cp{PY.replace(".", "")}-torch{torch}-{ops}'


def find_wheel(folder: Path, requirement: str, under: str = '') -> Path | None:
    """Returns a wheel for the requirement `name==version` in `folder`, or in its subfolders that match `under`."""
    name, version = requirement.split('==')
    return next(folder.glob(f'{under}{name.replace("-", "_")}-{version}-*.whl'), None)


def run(label: str, command: list[str | Path], env: dict[str, str] | None = None) -> None:
    """Runs a command with its output in a log, and says every few seconds how far it is.

    Raises:
        SetupError: The command failed; the message holds the log's path and its last lines.
    """
    log = WORK / 'logs' / (re.sub(r'[^\w.]+', '-', label) + '.log')
    log.parent.mkdir(parents=True, exist_ok=True)
    latest, start, tty = '', time.monotonic(), sys.stdout.isatty()
    # A session of its own, so that ending it ends the compilers as well. It inherits the lock: should this process be
    # killed, the next run waits for what is left of it.
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'PYTHONUNBUFFERED': '1', **(env or {})},
        text=True,
        errors='replace',
        start_new_session=True,
        close_fds=False,
    )

    def follow() -> None:
        nonlocal latest
        assert process.stdout is not None
        with log.open('w') as sink:
            for line in process.stdout:
                sink.write(line)
                sink.flush()
                if step := re.match(r'\s*(\[\d+/\d+\]|(?:Collecting|Downloading|Installing|Building) [^(]+)', line):
                    latest = step[1].strip()[:70]

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            reader.join(1 if tty else 15)
            text = f'      {time.monotonic() - start:4.0f} s  {latest}'
            if tty:
                print(f'\r\033[K{text}', end='', flush=True)
            elif reader.is_alive():
                print(text, flush=True)
        process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        if tty:
            print('\r\033[K', end='', flush=True)
    if process.returncode:
        tail = '\n'.join(f'  | {line}' for line in log.read_text(errors='replace').splitlines()[-20:])
        raise SetupError(f'{label} failed; the last lines of {log}:\n{tail}')


class Env:
    """A virtual environment, and what it says of its own state.

    The stamp is written last: the environment is complete. The marker lies there while pip writes: if it is found at
    the start, a run was killed, and nothing inside can be trusted.
    """

    def __init__(self, path: Path, active: bool = False) -> None:
        self.path = path
        self.active = active
        self.python = Path(sys.executable) if active else path / 'bin' / 'python'
        self.stamp = path / 'mmkd_plugin.stamp'
        self.docs_stamp = path / 'mmkd_plugin.docs.stamp'
        self.marker = path / 'mmkd_plugin.installing'
        self.site_packages = path / 'lib' / f'python{PY}' / 'site-packages'
        self.link = self.site_packages / '_mmkd_torch.pth'

    def is_complete(self, wanted: str) -> bool:
        """Whether everything that the digest `wanted` stands for is installed."""
        return self.stamp.is_file() and self.stamp.read_text() == wanted and self.python.exists()

    def is_usable(self) -> bool:
        """Whether one can build upon what is there: this python, with pip, and no run was killed while it wrote."""
        return not self.marker.exists() and self.ask('import sys, pip; print("%d.%d" % sys.version_info[:2])') == PY

    def create(self) -> None:
        """Makes the environment, unless a usable one is there."""
        self.stamp.unlink(missing_ok=True)
        self.link.unlink(missing_ok=True)
        if not self.active and not self.is_usable():
            run(f'make {self.path.name}', [sys.executable, '-m', 'venv', '--clear', self.path])

    def fill(self, installer: Env, label: str, *arguments: str) -> None:
        """Makes this an environment without pip and setuptools, which holds just what `installer` installs here."""
        self.stamp.unlink(missing_ok=True)
        run(f'make {self.path.name}', [sys.executable, '-m', 'venv', '--clear', '--without-pip', self.path])
        installer.pip(label, '--ignore-installed', '--prefix', self.path, *arguments)

    def borrow(self, other: Env) -> None:
        """Sees the other environment's packages from now on; builds that pip isolates do not."""
        # A bare path: pip takes it away again in isolation, but not what a line of code adds.
        self.link.write_text(f'{other.site_packages}\n')

    def pip(self, label: str, *arguments: str | Path) -> None:
        """Installs with pip. An orderly failure leaves no marker: pip has then undone what it did."""
        self.marker.touch()
        try:
            run(label, [self.python, '-m', 'pip', 'install', '--disable-pip-version-check', *arguments])
        except SetupError:
            self.marker.unlink()
            raise
        self.marker.unlink()

    def ask(self, code: str) -> str | None:
        """Returns what a line of Python prints inside the environment, None if it fails."""
        if not self.python.exists():
            return None
        done = subprocess.run([self.python, '-c', code], capture_output=True, text=True, cwd=self.path)
        return None if done.returncode else done.stdout.strip()

    def finish(self, reached: str) -> None:
        """Says that the environment is complete."""
        part = self.stamp.with_suffix('.part')
        part.write_text(reached)
        os.replace(part, self.stamp)


def preflight(compiles: bool, gigabytes: int, where: Path) -> None:
    """Checks, before anything is downloaded, what later steps need.

    Raises:
        SetupError: Something is missing.
    """
    if not all(map(importlib.util.find_spec, ('venv', 'ensurepip'))):
        raise SetupError(f'{sys.executable} cannot make environments. On Debian: apt-get install python3-venv')
    if compiles and not any(map(shutil.which, (os.environ.get('CXX', 'c++'), 'g++'))):
        raise SetupError('There is no C++ compiler, which mmcv needs. On Debian: apt-get install g++')
    if compiles and not (Path(sysconfig.get_path('include')) / 'Python.h').exists():
        raise SetupError(f'{sys.executable} has no headers (Python.h). On Debian: apt-get install python3-dev')
    if (free := shutil.disk_usage(where).free / 1e9) < gigabytes:
        raise SetupError(f'{where} has {free:.1f} GB free, and about {gigabytes} GB are needed.')


def compile_mmcv(env: Env, requirement: str, ops: str, folder: Path) -> Path:
    """Compiles mmcv into `folder`, where a wheel appears only when it is whole."""
    environ = {
        'MAX_JOBS': os.environ.get('MAX_JOBS', str(len(os.sched_getaffinity(0)))),
        'CFLAGS': os.environ.get('CFLAGS', '-g0'),  # debug symbols double the compile's time
        'MMCV_WITH_OPS': '1',
        'PATH': f'{env.python.parent}{os.pathsep}{os.environ["PATH"]}',  # where ninja is
    }
    if ops == 'cpu':
        environ['CUDA_VISIBLE_DEVICES'] = ''  # mmcv's setup.py compiles for CUDA wherever it sees a GPU
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix='building-') as building:
        # Without pip's own cache, which does not know for which torch a wheel was built.
        options = ['-v', '--no-build-isolation', '--no-deps', '--no-cache-dir', '-w', building]
        run(f'compile {requirement}', [env.python, '-m', 'pip', 'wheel', *options, requirement], environ)
        wheel = find_wheel(Path(building), requirement)
        if wheel is None:
            raise SetupError(f'pip made no wheel of {requirement}; see {WORK / "logs"}')
        return wheel.replace(folder / wheel.name)


def mmcv_wheel(env: Env, requirement: str) -> Path:
    """Returns a wheel of mmcv for the environment's torch: a kept one, or one compiled now."""
    answer = env.ask('import torch; print(torch.__version__, torch.cuda.is_available())')
    if answer is None:
        raise SetupError(f'torch does not import; what it says: {env.python} -c "import torch"')
    torch, gpu = answer.split()
    ops = 'cuda' if os.environ.get('FORCE_CUDA') == '1' or (gpu == 'True' and shutil.which('nvcc')) else 'cpu'
    folder = wheel_dir(torch, ops)
    if wheel := find_wheel(folder, requirement):
        step(2, f"mmcv's ops for torch {torch} ({ops}): kept in {folder}")
        return wheel
    duration = '4 to 18 minutes' if ops == 'cpu' else 'up to an hour'
    step(2, f"compiling mmcv's ops for torch {torch} ({ops}), {duration} on two cores; kept for later environments")
    if gpu == 'True' and ops == 'cpu':
        print('      There is a GPU but no nvcc: mmcv gets CPU ops only, and detectors will not train on the GPU.')
    env.pip('install build tools', *BUILD_TOOLS)  # an active environment may hold others
    return compile_mmcv(env, requirement, ops, folder)


def lacking(stack: str, present: set[str]) -> list[str]:
    """Returns the stack's requirements that are not present, whatever the version: an active environment is the user's.

    Raises:
        SetupError: The other OpenMMLab stack is present.
    """
    other = 'openmmlab' if stack == 'onedl' else 'onedl'
    names = {canonical(line) for line in requirements(stack)}
    if clash := sorted(present & {canonical(line) for line in requirements(other)} - names):
        raise SetupError(
            f'The environment holds {", ".join(clash)}, whose modules have the same names as those of the {stack} '
            f'stack. Use STACK={other}, or another environment.'
        )
    return [line for line in requirements(stack) if canonical(line) not in present]


def step(number: int, title: str) -> None:
    """Prints a step's title."""
    print(f'[{number}/{STEPS}] {title}', flush=True)


def install(stack: str, env: Env, torch_env: Env, pins: list[str], torch_digest: str) -> None:
    """Does what is left to do: torch, mmcv, the rest, and a look at whether it imports."""
    present: set[str] = set()
    if env.active:
        present = {canonical(name) for dist in metadata.distributions() if (name := dist.metadata['Name'])}
    lines = lacking(stack, present)
    has_torch = 'torch' in present or torch_env.is_complete(torch_digest)
    mmcv = next((line for line in lines if 'mmcv==' in line), None)
    # The wheels' folder is known for sure only once torch is there; a compiler is asked for if none can fit.
    likely = wheel_dir(pins[0].removeprefix('torch=='), '')
    kept = mmcv and find_wheel(likely.parent, mmcv, under=f'{likely.name.rstrip("-")}*/')
    preflight(compiles=bool(mmcv and not kept), gigabytes=2 if has_torch else 12, where=ROOT)

    step(1, 'torch is there' if has_torch else f'{" ".join(pins)}: 1 to 10 minutes')
    env.create()
    # Before torch is borrowed, which may bring a setuptools: on Python 3.12 distutils comes from one of the
    # environment's own, by a .pth file.
    if tools := [tool for tool in BUILD_TOOLS if canonical(tool) not in present]:
        env.pip('install build tools', *tools)
    if torch_env is env:
        if not has_torch:
            env.pip('install torch', *pins)
    else:
        if not has_torch:
            torch_env.fill(env, 'install torch', *pins)
            torch_env.finish(torch_digest)
        env.borrow(torch_env)

    wheel = mmcv_wheel(env, mmcv) if mmcv else None
    step(3, f'the other packages of the {stack} stack, and the tools: 1 to 3 minutes')
    if wheel:  # by force: the same version may be there, compiled for another torch
        env.pip('install mmcv', '--force-reinstall', '--no-deps', wheel)
    files = [part for name in OURS for part in ('-r', ROOT / 'requirements' / f'{name}.txt')]
    env.pip(f'install {stack}', *lines, *files)
    env.pip('install mmkd_plugin', '--no-deps', '--no-build-isolation', '-e', ROOT)

    step(4, 'importing everything')
    if not env.active and env.ask('import cv2') is None:
        # On a machine without a screen's libraries (libGL) only OpenCV's headless build imports.
        version = env.ask('from importlib.metadata import version; print(version("opencv-python"))')
        env.pip('install headless OpenCV', '--force-reinstall', '--no-deps', f'opencv-python-headless=={version}')
    run(f'import {stack}', [env.python, '-c', CHECK])


def add_docs(env: Env, wanted: str) -> None:
    """Installs what builds the documentation into a complete environment.

    The environment's stamp is away meanwhile: one in which pip was killed is made anew.
    """
    reached = env.stamp.read_text()
    env.stamp.unlink()
    print('What builds the documentation: under a minute', flush=True)
    try:
        env.pip('install docs', '-r', ROOT / 'requirements' / 'docs.txt')
        env.docs_stamp.write_text(wanted)
    finally:
        if not env.marker.exists():
            env.finish(reached)


def setup(stack: str, env: Env, torch: str, torchvision: str | None, docs: bool = False) -> None:
    """Brings an environment to completion; returns at once if it is complete."""
    torch_env = env if env.active else Env(ROOT / ('.venv-torch' if torch == TORCH else f'.venv-torch-{torch}'))
    if env.active:
        with suppress(metadata.PackageNotFoundError):
            torch, torchvision = metadata.version('torch'), None
    pins = [f'torch=={torch}', f'torchvision=={torchvision}' if torchvision else 'torchvision']
    torch_digest = digest(*pins)
    wanted = digest(*pins, stack, files=[stack, *OURS])

    docs_wanted = digest('docs', files=['docs'])

    def complete() -> bool:
        return env.is_complete(wanted) and (env.active or torch_env.is_complete(torch_digest))

    def documented() -> bool:
        return not docs or (env.docs_stamp.is_file() and env.docs_stamp.read_text() == docs_wanted)

    if complete() and documented():
        return
    WORK.mkdir(exist_ok=True)
    with (WORK / 'lock').open('w') as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('Waiting for another set-up of this checkout, or for what is left of a killed one.', flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete():
            print(f'Setting up {env.path} with the {stack} stack. Interrupted, it goes on when run again.', flush=True)
            install(stack, env, torch_env, pins, torch_digest)
            env.finish(wanted)
            print(f'{env.path} is ready.', flush=True)
        if not documented():
            add_docs(env, docs_wanted)


def make_bridges() -> None:
    """Makes the files that `read_base` configs inherit, also for a config that came after the install.

    Raises:
        SetupError: They cannot be made.
    """
    try:
        runpy.run_path(str(ROOT / 'tools' / 'bridges.py'))['write']()
    except (OSError, ValueError) as error:
        raise SetupError(f'The bridges to the configs cannot be made: {error}') from error


def main() -> int:
    """Reads the command line and sets up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--stack', choices=['onedl', 'openmmlab'], default='onedl', help='OpenMMLab packages')
    parser.add_argument('--torch', default=TORCH, help=f'version of torch (default: {TORCH})')
    parser.add_argument('--torchvision', help='its version (default: the one that fits torch)')
    parser.add_argument('--env', default='.venv', help="folder, or 'active': the active environment with its own torch")
    parser.add_argument('--docs', action='store_true', help='with what builds the documentation')
    parser.add_argument('--python', help='interpreter to make the environment with (default: the one that runs this)')
    args = parser.parse_args()
    if args.python:
        command = [args.python, __file__, '--stack', args.stack, '--torch', args.torch, '--env', args.env]
        command += ['--torchvision', args.torchvision] if args.torchvision else []
        os.execvp(args.python, command + (['--docs'] if args.docs else []))
    try:
        if not (3, 10) <= sys.version_info[:2] <= (3, 12):
            raise SetupError(f'This is Python {PY}; 3.10, 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11')
        active = args.env == 'active'
        env = Env(Path(sys.prefix) if active else Path(args.env).resolve(), active)
        setup(args.stack, env, args.torch, args.torchvision or TORCHVISION.get(args.torch), args.docs)
        make_bridges()
    except SetupError as error:
        print(f'\nset-up: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nset-up: interrupted; run it again and it goes on.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended, too
    sys.exit(main())
