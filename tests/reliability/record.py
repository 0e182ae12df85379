"""What the campaign found, case by case, in one file."""

import datetime
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmkd_plugin.files.atomic import write_text
from mmkd_plugin.version import __version__


class Record:
    """Rows by part and case; written after each, so that a campaign that was stopped goes on.

    Args:
        path: JSON; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: By part: ``rows`` by case, ``dates``, ``with`` (versions).
        self.found: dict[str, dict[str, Any]] = json.loads(path.read_text() or '{}') if path.exists() else {}

    def rows(self, part: str) -> dict[str, dict[str, Any]]:
        """Those of a part, by case."""
        return self.found.get(part, {}).get('rows', {})

    def add(self, part: str, case: str, row: dict[str, Any]) -> None:
        """Keep a row."""
        kept = self.found.setdefault(part, {'rows': {}, 'dates': [], 'with': ''})
        kept['rows'][case] = row
        kept['dates'] = sorted({*kept['dates'], datetime.date.today().isoformat()})
        kept['with'] = versions()
        write_text(self.path, json.dumps(self.found, indent=1, ensure_ascii=False) + '\n')

    def forget(self, part: str) -> None:
        """All of a part."""
        self.found.pop(part, None)


def versions() -> str:
    """What a campaign ran with."""
    names = [('mmengine', ('onedl-mmengine', 'mmengine')), ('torch', ('torch',))]
    told = [f'{name} {found}' for name, dists in names if (found := _first(dists))]
    parts = [f'mmkd_plugin {__version__}', *told, f'Python {platform.python_version()}', f'{os.cpu_count()} CPU cores']
    return ', '.join(parts)


def _first(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
