"""What a block of code opens for writing, and what it starts, seen by python's own audit events."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STARTS = {
    'os.system',
    'os.exec',
    'os.posix_spawn',
    'os.spawn',
    'os.fork',
    'os.forkpty',
    'subprocess.Popen',
    'pty.spawn',
}
_CHANGES = {
    'os.remove', 'os.rename', 'os.rmdir', 'os.mkdir', 'os.link', 'os.symlink', 'os.truncate', 'os.chmod', 'os.chown',
    'shutil.rmtree', 'shutil.move',
}  # fmt: skip
_BELOW = ('os.remove', 'os.rmdir')
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_now: list[tuple[Path, list[str]]] = []
_installed: list[bool] = []


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """Collect what happens outside of a folder, and every process that is started; for the time of the block.

    Args:
        folder: Where writing is fine.

    Yields:
        What happened, in words; filled while the block runs.
    """
    if not _installed:  # can never be removed, and does nothing outside of blocks
        sys.addaudithook(_hear)
        _installed.append(True)
    found: list[str] = []
    _now.append((folder.resolve(), found))
    try:
        yield found
    finally:
        _now.pop()


def _hear(event: str, given: tuple[Any, ...]) -> None:
    if not _now:
        return
    folder, found = _now[-1]
    if event in _STARTS:
        found.append(f'{event} {given[:2]!r:.120}')
    elif event == 'open':
        path, mode, flags = given
        if isinstance(path, (str, bytes, os.PathLike)) and (flags & _WRITES or set(str(mode or '')) & set('wax+')):
            _outside(event, path, folder, found)
    elif event in _CHANGES:
        beside = [number for number in given if type(number) is int and number >= 0]  # folders that paths are below
        for path in given[:2]:
            if isinstance(path, (str, bytes, os.PathLike)):
                _outside(event, path, folder, found, beside[-1] if event in _BELOW and beside else None)


def _outside(event: str, path: Any, folder: Path, found: list[str], below: int | None = None) -> None:
    start = Path.cwd() if below is None else Path(os.readlink(f'/proc/self/fd/{below}'))
    real = Path(os.path.realpath(start / os.fsdecode(path)))
    harmless = real.is_relative_to(folder) or '__pycache__' in real.parts or real.is_relative_to('/dev')
    if not harmless:
        found.append(f'{event} {real}')
