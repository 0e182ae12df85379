"""What `tools/store.py` does with a folder alone: say what is in it, find what is damaged, remove what is stale."""

import shutil
from pathlib import Path

from .header import NAME, Header
from .records import Records, size


def open_store(path: Path) -> Records:
    """The records of a folder.

    Raises:
        FileNotFoundError: If there is no store.
        ValueError: If its header cannot be read.
    """
    header = Header.of(path)
    if header is None:
        raise FileNotFoundError(f"'{path}' is no knowledge store: it has no {NAME}")
    return Records(path, header)


def info(path: Path) -> str:
    """What a store is of, what it keeps, and how much of that is there."""
    records = open_store(path)
    header = records.header
    identity, entries = header.identity, header.entries
    lines = [
        f'{path}: {entries} samples of {"x".join(map(str, header.images))}',
        f'teacher   {identity["teacher"]["weights"][:21]}..., precision {identity["teacher"]["precision"]}',
        f'data      {identity["data"]["digest"]}',
        'versions  ' + ', '.join(identity['versions'].values()),
    ]
    for tap, form in header.forms.items():
        kept = '' if form.keep == 'all' else f', the largest {form.keep} at T = {list(form.temperatures)}'
        lines.append(f'tap       {tap} {form.shape}: {form.name}, {form.dtype}{kept}, {form.layout.itemsize} bytes')
    lines.append(f'record    {header.payload} bytes and 4 of a checksum')
    for view in records.views():
        there = int(records.written(view).sum())
        on_disk = sum(file.stat().st_blocks * 512 for file in records.files(view) if file.exists())
        lines.append(f'view {view:<4} {there} of {entries} records, {size(on_disk)} on the disk')
    return '\n'.join(lines)


def damaged(path: Path) -> dict[int, int]:
    """By view, how many records are there and not whole; reads all of them."""
    records = open_store(path)
    found = {view: len(records.torn(view)) for view in records.views()}
    return {view: count for view, count in found.items() if count}


def prune(path: Path, views: int | None = None, everything: bool = False) -> list[str]:
    """Remove what is stale: damaged records, what killed processes left of a header, views that are not wanted.

    No run should be using the store.

    Args:
        path: Folder of the store.
        views: How many to keep; None is all.
        everything: The whole store, also one whose header is damaged.

    Returns:
        What was removed, in words.

    Raises:
        FileNotFoundError: If there is no store.
    """
    told = []
    if everything:
        if not (path / NAME).is_file():
            raise FileNotFoundError(f"'{path}' is no knowledge store: it has no {NAME}")
        files = [path / NAME, *path.glob('view_*.bin'), *path.glob('view_*.crc')]
        told.append(f'the store, {len(files)} files')
        for file in reversed(files):  # the header last
            file.unlink()
    else:
        records = open_store(path)
        for view in records.views():
            if views is not None and view >= views:
                for file in records.files(view):
                    file.unlink(missing_ok=True)
                told.append(f'view {view}')
            elif len(torn := records.torn(view)):
                records.forget(view, torn)
                told.append(f'{len(torn)} damaged records of view {view}')
    for left in path.glob('.header.*'):
        shutil.rmtree(left, ignore_errors=True)
        told.append(left.name)
    if everything and not any(path.iterdir()):
        path.rmdir()
    return told
