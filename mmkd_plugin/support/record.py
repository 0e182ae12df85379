"""What was found, in a file: one entry for each config, kept as soon as it is there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.atomic import write_text
from .choice import family_of


class Record:
    """A JSON file of what was found.

    Args:
        path: Where it is, or will be.

    Raises:
        ValueError: If there is another kind of file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, dict[str, Any]] = {}
        if path.is_file():
            try:
                self.found = dict(json.loads(path.read_text())['configs'])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f'{path} is no record of tools/support_matrix.py: {error!r}') from error

    def add(self, config: str, entry: Mapping[str, Any]) -> None:
        """Keep what was found of a config; the file is whole at any time, with a line for each."""
        self.found[config] = dict(entry)
        lines = [f'{json.dumps(name)}: {json.dumps(self.found[name], sort_keys=True)}' for name in sorted(self.found)]
        write_text(self.path, '{"configs": {\n' + ',\n'.join(lines) + '\n}}\n')

    def families(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By family, by config."""
        families: dict[str, dict[str, dict[str, Any]]] = {}
        for config in sorted(self.found):
            families.setdefault(family_of(config), {})[config] = self.found[config]
        return families
