"""What a config says of a knowledge store."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..options import check_mapping, check_number, check_whole

EXAMPLE = "store=dict(path='work_dirs/knowledge', views=10)"
_KEYS = ('path', 'views', 'keep', 'dtype', 'seed', 'temperatures', 'record_limit')


@dataclass(frozen=True)
class StoreOptions:
    """Where knowledge is kept, and how much of it.

    Args:
        path: Folder of one store; made when it is not there.
        views: How many draws of the augmentation pipeline there are; epoch e shows view e mod views.
        keep: ``all`` values, or of class scores the largest so many.
        dtype: ``float16`` or ``float32`` of what is kept.
        seed: What the views are drawn from, together with view and index; not the run's, so that runs share them.
        temperatures: With ``keep=K``, those at which losses may read the store; empty: those of this run's losses.
        record_limit: Bytes that a sample and view may take.
    """

    path: Path
    views: int
    keep: int | Literal['all'] = 'all'
    dtype: str = 'float16'
    seed: int = 0
    temperatures: tuple[float, ...] = ()
    record_limit: int = 2**18

    @classmethod
    def read(cls, given: Any, name: str) -> 'StoreOptions':
        """From a config, checked.

        Args:
            given: A dictionary.
            name: The teacher's, for errors.

        Raises:
            ValueError: If a key is missing or unknown, or a value is not understood.
        """
        who = f'{name}: store'
        values = check_mapping(given, who, EXAMPLE[len('store=') :])
        if unknown := [key for key in values if key not in _KEYS]:
            near = difflib.get_close_matches(unknown[0], _KEYS, n=1)
            hint = f' (did you mean {near[0]}?)' if near else ''
            raise ValueError(f'{who} has the unknown keys {unknown}{hint}. Known: {", ".join(_KEYS)}')
        if not {'path', 'views'} <= values.keys():
            raise ValueError(f'{who}={dict(values)} given, expected at least path and views, as in {EXAMPLE}')
        path, dtype = values['path'], values.get('dtype', 'float16')
        if not isinstance(path, (str, Path)) or not str(path):
            raise ValueError(f'{who}: path={path!r} given, expected a folder')
        if dtype not in ('float16', 'float32'):
            raise ValueError(f"{who}: dtype={dtype!r} given, expected 'float16' or 'float32'")
        keep = values.get('keep', 'all')
        if keep != 'all' and (not isinstance(keep, int) or isinstance(keep, bool) or keep < 1):
            raise ValueError(f"{who}: keep={keep!r} given, expected 'all' or how many of the largest class scores")
        return cls(
            Path(path).expanduser(),
            check_whole(values['views'], f'{who}: views', 1),
            keep,
            dtype,
            check_whole(values.get('seed', 0), f'{who}: seed'),
            _temperatures(values.get('temperatures', ()), who, keep),
            check_whole(values.get('record_limit', cls.record_limit), f'{who}: record_limit', 1),
        )


def _temperatures(given: Any, who: str, keep: int | str) -> tuple[float, ...]:
    if not isinstance(given, (list, tuple)):
        raise ValueError(f'{who}: temperatures={given!r} given, expected a list such as [1.0, 4.0]')
    if given and keep == 'all':
        raise ValueError(f"{who}: temperatures={given!r} given with keep='all', where any can be had: drop them")
    return tuple(sorted({check_number(value, f'{who}: temperatures', above=True) for value in given}))
