"""The header of a store: what its records belong to, and how they are made."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.atomic import write_text
from .forms import Form, form_of
from .options import StoreOptions

#: Another number: records, draws of views or identities mean something else.
FORMAT = 1
NAME = 'header.json'


@dataclass(frozen=True)
class Header:
    """What a store says of itself; plain data.

    Args:
        identity: What the records depend on, nested; anything else is another store.
        entries: Of the data set.
        images: (C, H, W) that the student's data preprocessor makes.
        forms: By tap, as it is written.
        about: What is good to know and is not compared.
    """

    identity: dict[str, Any]
    entries: int
    images: tuple[int, ...]
    forms: dict[str, Form]
    about: dict[str, Any]

    @property
    def payload(self) -> int:
        """Bytes of a record without its checksum."""
        return sum(form.layout.itemsize for form in self.forms.values())

    def check_read(self, read: Mapping[str, float | None], options: StoreOptions, images: tuple[int, ...]) -> None:
        """See that a run can be taught by what is kept.

        Args:
            read: Taps, each with the temperature at which it is read; None where it does not matter.
            options: Of the run.
            images: (C, H, W) of the run.

        Raises:
            ValueError: If something else is kept.
        """
        who = f"the store '{options.path}'"
        for tap, temperature in read.items():
            form = self.forms.get(tap)
            if form is None:
                kept = ', '.join(self.forms)
                raise ValueError(f"{who} keeps {kept}, and this run reads '{tap}': give another path")
            then, now = (form.keep, form.dtype), (options.keep, options.dtype)
            if then != now:
                raise ValueError(
                    f"{who} has (keep, dtype) {then} of '{tap}', and this run says {now}: say the same, or give "
                    'another path'
                )
            if temperature is not None and temperature not in form.temperatures:
                raise ValueError(
                    f"{who} keeps '{tap}' for the temperatures {list(form.temperatures)}, and this run reads it at "
                    f'{temperature:g}: give another path, with temperatures=[...] for all that will be read'
                )
        if self.images != images:
            raise ValueError(f'{who} is of images of {self.images}, and this run makes some of {images}')

    def to_text(self) -> str:
        """JSON, with a digest of itself."""
        content = {
            'format': FORMAT,
            'identity': self.identity,
            'entries': self.entries,
            'images': list(self.images),
            'taps': {tap: form.to_dict() for tap, form in self.forms.items()},
            'about': self.about,
        }
        return json.dumps({**content, 'sha256': _digest(content)}, indent=1)

    @classmethod
    def from_text(cls, text: str | bytes, path: Path) -> 'Header':
        """Read back what :meth:`to_text` wrote.

        Raises:
            ValueError: If it is damaged, or of another format.
        """
        damaged = f"the header of the store '{path}' is damaged"
        try:
            content = json.loads(text)
            digest = content.pop('sha256')
            if not isinstance(digest, str) or digest != _digest(content):
                raise KeyError('sha256')
            if content['format'] != FORMAT:
                raise ValueError(f"the store '{path}' has format {content['format']}, expected {FORMAT}")
            forms = {tap: form_of(form) for tap, form in content['taps'].items()}
            header = cls(content['identity'], content['entries'], tuple(content['images']), forms, content['about'])
            header._check_itself()
            return header
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f'{damaged} ({error!r:.100}): delete the store, and it is filled anew') from error

    def _check_itself(self) -> None:
        """Raises TypeError or KeyError if it is not what :meth:`to_text` writes: a digest proves no good will."""
        numbers = (self.entries, *self.images)
        if not all(type(number) is int and number >= 0 for number in numbers) or not isinstance(self.about, dict):
            raise TypeError('entries, images or about')
        data = self.identity.get('data', {})
        if data.get('entries', self.entries) != self.entries:  # by which files are made as long as they will be
            raise KeyError('entries')

    @classmethod
    def of(cls, path: Path) -> 'Header | None':
        """That of a folder; None where there is none yet.

        Raises:
            ValueError: If it cannot be read.
        """
        try:
            return cls.from_text((path / NAME).read_bytes(), path)
        except FileNotFoundError:
            return None

    def publish(self, path: Path) -> 'Header':
        """Be the header of a folder, unless another process was quicker; the one that is there."""
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path, prefix='.header.') as folder:
            write_text(Path(folder) / NAME, self.to_text())
            try:
                os.link(Path(folder) / NAME, path / NAME)  # unlike a rename, it replaces nothing
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                write_text(path / NAME, self.to_text())
        found = Header.of(path)
        assert found is not None
        return found

    def check(self, identity: Mapping[str, Any], path: Path) -> None:
        """Refuse to be read as something else.

        Raises:
            ValueError: If the identity differs; the message says in what.
        """
        if changed := list(differences(self.identity, plain(identity))):
            shown = '\n  '.join(changed[:8]) + ('\n  ...' if len(changed) > 8 else '')
            raise ValueError(
                f"the store '{path}' was made of something else than this run shows its teacher:\n  {shown}\n"
                'Undo that, or give another path (or delete the store: tools/store.py prune PATH --all)'
            )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """What JSON makes of a value."""
    return json.loads(json.dumps(value))


def differences(then: Any, now: Any, where: str = '') -> Iterator[str]:
    """What differs between two nested values of JSON, one line for each place."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            place = f'{where}.{key}' if where else str(key)
            if key not in now or key not in then:
                only, value = ('then', then[key]) if key in then else ('now', now[key])
                yield f'{place}: only {only}: {_short(value)}'
            else:
                yield from differences(then[key], now[key], place)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, pair in enumerate(zip(then, now, strict=True)):
            yield from differences(*pair, f'{where}[{number}]')
    elif then != now or type(then) is not type(now):
        yield f'{where}: {_short(then)} then, {_short(now)} now'


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f'{text[:157]}...'
