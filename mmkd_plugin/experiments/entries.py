"""The configs of a comparison: what each is called, what it says once its bases are merged, how big its model is."""

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import import_modules_from_strings


class Entry(NamedTuple):
    """A config of a comparison.

    Attributes:
        name: What the table calls it.
        path: Of its file.
        config: All of its bases and the options merged.
    """

    name: str
    path: str
    config: Config

    @property
    def folder(self) -> str:
        """The name, as one of a folder."""
        return re.sub(r'[^\w.-]+', '_', self.name).strip('._') or '_'

    def resolved(self, seed: int) -> dict[str, Any]:
        """Everything that a run of it does follow from, as plain JSON."""
        config = self.config.to_dict()
        config.pop('work_dir', None)
        config['randomness'] = {**(config.get('randomness') or {}), 'seed': seed}
        return json.loads(json.dumps(config, default=_told))


def _told(value: Any) -> str:
    """What JSON has no word for: a class or a function by its name, anything else without its address."""
    name = getattr(value, '__qualname__', None)
    return f'{value.__module__}.{name}' if name else re.sub(r' at 0x[0-9a-f]+', '', repr(value))


def read_entries(
    paths: Sequence[str], names: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None
) -> list[Entry]:
    """Configs by path.

    Args:
        paths: Each once.
        names: Of some of them; else a config is called as its file.
        options: Merged into all of them.

    Raises:
        FileNotFoundError: If a config does not exist.
        ValueError: If two would have one name, or a name belongs to no config.
    """
    names = names or {}
    if unknown := [path for path in names if path not in paths]:
        raise ValueError(f"--name names '{unknown[0]}', which is none of the configs: {', '.join(paths)}")
    entries: dict[str, Entry] = {}
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"config '{path}' does not exist (looked at {Path(path).absolute()})")
        config = Config.fromfile(path, import_custom_modules=False)
        config.merge_from_dict(dict(options or {}))
        entry = Entry(names.get(path, Path(path).stem), path, config)
        if other := entries.get(entry.folder.lower()):
            raise ValueError(
                f"'{other.path}' and '{path}' would both be called '{entry.name}': name one, as in --name {path}=NAME"
            )
        entries[entry.folder.lower()] = entry
    return list(entries.values())


def parameters_of(config: Config) -> dict[str, int]:
    """Build the model of a config, and count.

    Returns:
        The student's parameters as ``student``; those that are trained beside it (connectors of losses, peers) as
        ``beside``; those of each trained teacher by its name.
    """
    if config.get('custom_imports'):
        import_modules_from_strings(**config.custom_imports)
    init_default_scope(config.get('default_scope', 'mmengine'))
    cfg = copy.deepcopy(config.model)
    if config.get('data_preprocessor'):  # as the Runner does
        cfg.setdefault('data_preprocessor', config.data_preprocessor)
    model = MODELS.build(cfg)
    distill = getattr(model, 'distill', None)
    beside = sum(p.numel() for p in distill.parameters() if p.requires_grad) if distill is not None else 0
    apart = {id(p) for p in distill.parameters()} if distill is not None else set()
    teachers = getattr(distill, 'teachers', {})
    return {
        'student': sum(p.numel() for p in model.parameters() if id(p) not in apart),
        'beside': beside,
        **{name: sum(p.numel() for p in teacher.model.parameters()) for name, teacher in teachers.items()},
    }
