"""Where the file of a checkpoint is, that a path or an address names."""

import hashlib
import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import torch
from mmengine.dist import barrier, get_rank


def local_path(source: str) -> Path | None:
    """The file that a path or a ``file://`` address means; None for addresses that have to be fetched.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is a folder.
    """
    address = re.match(r'([\w:-]+)://', source)
    if address and address[1] != 'file':
        return None
    path = Path(source).expanduser()
    if address:
        parts = urlparse(source)
        if parts.netloc not in ('', 'localhost'):
            raise ValueError(
                f"checkpoint '{source}' given; the address of a local file has three slashes: file:///path"
            )
        path = Path(unquote(parts.path))
    if path.is_dir():
        raise ValueError(f"checkpoint '{source}' is a folder, expected a file. In it: {_found_in(path)}")
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint '{source}' does not exist (looked at {path.absolute()}). "
            'Train the teacher first, or give the path or address of its weights'
        )
    return path


def downloaded(address: str) -> Path:
    """Where an address's file is kept, after it has been fetched: by the first process, and once.

    As torch and mmengine do, below ``torch.hub``'s folder under its own name, if that carries a hash.
    Others (``epoch_100.pth``) mean something else at each address, and get a folder for each.

    Args:
        address: It begins with ``http://`` or ``https://``.

    Raises:
        OSError: If it cannot be fetched.
    """
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    name = Path(urlparse(address).path).name or 'checkpoint'
    if not re.search(r'-[0-9a-f]{8,}\.', name):
        folder /= hashlib.sha256(address.encode()).hexdigest()[:8]
    path = folder / name
    try:
        if get_rank() == 0:
            _fetch(address, path)
    finally:
        barrier()
    _fetch(address, path)  # on another machine than the first process
    return path


def _fetch(address: str, path: Path) -> None:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(path), progress=sys.stderr.isatty())


def _found_in(folder: Path) -> str:
    """The checkpoints in a folder, newest first, for an error about a folder that was given in place of a file."""
    paths = [path for ending in ('pth', 'pt', 'safetensors') for path in folder.glob(f'*.{ending}')]
    names = [path.name for path in sorted(paths, key=os.path.getmtime, reverse=True)]
    return ', '.join(names[:5]) + (', ...' if len(names) > 5 else '') if names else 'no checkpoints'
