"""Files that are either whole or not there."""

import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically: to a temporary name beside it, flushed, then renamed.

    A reader, or a killed writer, sees the old file or the new one, never a part.

    Args:
        path: Where to; missing folders are made.
        data: The content.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left in a folder (not below): temporary files of :func:`write_bytes`.

    Args:
        folder: One that nobody else is writing into.
    """
    for path in folder.glob('.*'):
        if re.fullmatch(r'\..+\.(pth|csv|json|txt)\.[a-z0-9_]{8}', path.name):
            path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """:func:`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def checkpoint_bytes(checkpoint: Any) -> bytes:
    """What ``torch.save`` writes: the same bytes for the same content (into a file, it writes the file's name too)."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def save_checkpoint(checkpoint: Any, path: str | Path) -> None:
    """``torch.save``, atomically; see :func:`write_bytes`."""
    write_bytes(path, checkpoint_bytes(checkpoint))


class AtomicBackend(LocalBackend):
    """mmengine's local files, written atomically.

    For ``default_hooks=dict(checkpoint=dict(backend_args=dict(backend='atomic')))``: a run killed
    while it saves leaves no half-written checkpoint behind.
    """

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write bytes to a path, see :func:`write_bytes`."""
        write_bytes(filepath, bytes(obj))

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a path, see :func:`write_bytes`."""
        write_bytes(filepath, obj.encode(encoding))


def register() -> None:
    """Make ``backend='atomic'`` known to mmengine."""
    register_backend('atomic', AtomicBackend, force=True)
