"""Records on disk: fixed in size, memory-mapped, each with a checksum; a file for each view."""

import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .header import Header

Array = np.ndarray[Any, Any]


class Records:
    """The records of a store.

    View v has two files: ``view_v.bin`` with the values of all samples, and ``view_v.crc`` with a CRC-32 for each, 0
    where nothing was written. Both are sparse until they are. A checksum covers view, index and values, and is written
    after
    these: what a killed writer left behind, and what was flipped on the disk, counts as not written. Several processes
    may write at once; the same record twice is the same record, and what two of them tore is not written.

    Args:
        path: Folder of the store.
        header: Its header.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self.layout = np.dtype([(tap, form.layout) for tap, form in header.forms.items()])
        self._lengths = [self.layout.itemsize * header.entries, 4 * header.entries]
        self._maps: dict[int, tuple[Array, Array]] = {}
        self._handles: dict[tuple[int, int], int] = {}

    @property
    def bytes_per_record(self) -> int:
        """On the disk, checksum included."""
        return self.layout.itemsize + 4

    def views(self) -> list[int]:
        """Those that somebody has begun."""
        names = [path.stem.removeprefix('view_') for path in self.path.glob('view_*.crc')]
        return sorted(int(name) for name in names if name.isdecimal())

    def files(self, view: int) -> tuple[Path, Path]:
        """Values and checksums of a view."""
        stem = self.path / f'view_{view:04d}'
        return stem.with_suffix('.bin'), stem.with_suffix('.crc')

    def written(self, view: int) -> Array:
        """Of which samples (entries,) there is a record; whether it is whole is seen when it is read."""
        found = self._mapped(view)
        return np.zeros(self.header.entries, bool) if found is None else found[1] != 0

    def complete(self, views: int) -> bool:
        """Whether there is a record for every sample of the first so many views."""
        return all(self.written(view).all() for view in range(views))

    def read(self, view: int, indices: Array) -> tuple[Array, Array]:
        """Records (N,) as they are, and which of them (N,) are whole.

        Args:
            view: Which.
            indices: (N,) of samples.
        """
        found = self._mapped(view)
        if found is None:
            return np.zeros(len(indices), self.layout), np.zeros(len(indices), bool)
        records = found[0][indices]
        return records, (found[1][indices] != 0) & (found[1][indices] == self._sums(view, indices, records))

    def write(self, view: int, indices: Array, records: Array) -> None:
        """Put records (N,) where they belong: the values, then the checksums.

        Written, not mapped, so that a full disk is an error and kills nobody.

        Raises:
            RuntimeError: If the store cannot be written to.
        """
        self._put(view, 0, indices, records)
        self._put(view, 1, indices, self._sums(view, indices, records))

    def forget(self, view: int, indices: Array) -> None:
        """Take records for not written."""
        self._put(view, 1, indices, np.zeros(len(indices), '<u4'))

    def torn(self, view: int, chunk: int = 4096) -> Array:
        """Indices of records that are there and not whole; reads all of a view."""
        written = np.flatnonzero(self.written(view))
        bad = [part[~self.read(view, part)[1]] for part in np.split(written, range(chunk, len(written), chunk))]
        return np.concatenate(bad) if bad else written

    def check_room(self, views: int) -> str:
        """See that the disk has the room for so many views.

        Returns:
            What the store will take, in words.

        Raises:
            OSError: If it has not, or if files are links: somebody else's store must not lead out of its folder.
        """
        if links := [file for view in range(views) for file in self.files(view) if file.is_symlink()]:
            raise OSError(f"'{links[0]}' is a link to another file, which would be written into: delete it")
        each, entries = self.bytes_per_record, self.header.entries
        total = each * entries * views
        there = sum(each * int(self.written(view).sum()) for view in range(views))
        free = shutil.disk_usage(self.path).free
        told = f'{each} bytes for a sample and view, {entries} samples x {views} views: {size(total)}'
        if total - there > free:
            raise OSError(
                f"the store '{self.path}' needs {told}, of which {size(there)} are there, and the disk has "
                f'{size(free)} '
                'left: give fewer views, keep less (keep=K, float16), or another path'
            )
        return told

    def _sums(self, view: int, indices: Array, records: Array) -> Array:
        keys = np.stack([np.full(len(indices), view), indices], axis=1).astype('<u8')
        rows = np.ascontiguousarray(records).view(np.uint8).reshape(len(records), -1)
        sums = [zlib.crc32(row.data, zlib.crc32(key.data)) for row, key in zip(rows, keys, strict=True)]
        return np.array([total or 1 for total in sums], '<u4')  # 0 says that nothing was written

    def _put(self, view: int, which: int, indices: Array, values: Array) -> None:
        try:
            handle = self._handles.get((view, which)) or self._begin(view, which)
            for index, value in zip(indices.tolist(), values, strict=True):
                data = value.tobytes()
                if os.pwrite(handle, data, index * len(data)) != len(data):
                    raise OSError('the disk is full')
        except OSError as error:
            raise RuntimeError(f"the store '{self.path}' lacks records and cannot be written to: {error}") from error

    def _begin(self, view: int, which: int) -> int:
        """A handle to write with; the file is made as long as it will be."""
        handle = os.open(self.files(view)[which], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        if os.fstat(handle).st_size < (length := self._lengths[which]):
            os.truncate(handle, length)  # by whoever comes, to the same length
        self._handles[view, which] = handle
        return handle

    def _mapped(self, view: int) -> tuple[Array, Array] | None:
        """Values and checksums of a view; None where nobody has begun it."""
        if view not in self._maps:
            paths = self.files(view)
            found = [path.stat().st_size if path.exists() else 0 for path in paths]
            if any(one < length for one, length in zip(found, self._lengths, strict=True)):
                return None  # or is just making it
            if found != self._lengths:
                raise ValueError(
                    f"'{paths[0]}' and its checksums have {found} bytes, expected {self._lengths}: delete both, and "
                    'they are filled anew'
                )
            shape = (self.header.entries,)
            kinds = (self.layout, np.dtype('<u4'))
            values, sums = (np.asarray(np.memmap(p, k, 'r', shape=shape)) for p, k in zip(paths, kinds, strict=True))
            self._maps[view] = values, sums
        return self._maps[view]


def size(count: float) -> str:
    """A number of bytes in words.

    Example:
        >>> size(2_500_000)
        '2.5 MB'
    """
    for unit in ('B', 'kB', 'MB', 'GB'):
        if count < 1000:
            return f'{count:.0f} B' if unit == 'B' else f'{count:.1f} {unit}'
        count /= 1000
    return f'{count:.1f} TB'
