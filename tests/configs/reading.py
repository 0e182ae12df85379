"""Reading our configs and building their networks, each once; and their table, `configs/recipes.toml`.

What these tests take from inside the package is imported here and nowhere else.
"""

import copy
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope

from mmkd_plugin.distillation.read_losses import read_on as read_sides
from mmkd_plugin.networks import Tap, Taps, network_of
from mmkd_plugin.teachers import build_teacher, plain_student, untrained
from tools.recipes import CONFIGS, Recipe, read

__all__ = ['CONFIGS', 'DISTILLED', 'RECIPES', 'TABLE', 'Recipe', 'Tap', 'network_of', 'plain_student', 'untrained']

TABLE = read()
RECIPES = [recipe for recipe in TABLE.recipes if recipe.path]
DISTILLED = [recipe for recipe in RECIPES if not recipe.base]  # the others are a hook on top of these


def load(name: str | Path) -> Config:
    """A config by its path below ``configs/``; a copy that may be changed."""
    return copy.deepcopy(_load(str(name)))


@functools.cache
def _load(name: str) -> Config:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, '_file2dict', lambda filename, *_, **__: copy.deepcopy(_parse_once(filename)))
        return Config.fromfile(CONFIGS / name)


# else mmengine parses every base again for every config, ten files on average
_parse_once = functools.cache(Config._file2dict)


def content(name: str | Path) -> dict[str, Any]:
    """A config as plain keys and values; a copy."""
    return _load(str(name)).to_dict()


@functools.cache
def lines(name: str) -> list[str]:
    """Lines of a config, without blank ones and comments."""
    text = (line.strip() for line in (CONFIGS / name).read_text().splitlines())
    return [line for line in text if line and not line.startswith('#')]


def zoo(name: str, pretrained: bool = False) -> Config:
    """Another package's config, with the address of its weights; a copy. Nothing is downloaded."""
    return copy.deepcopy(_zoo(name, pretrained))


@functools.cache
def _zoo(name: str, pretrained: bool) -> Config:
    return get_config(name, pretrained=pretrained)


def without_scope(cfg: Any) -> Any:
    """A config without the notes that mmengine makes of which package a part came from."""
    if isinstance(cfg, dict):
        return {key: without_scope(value) for key, value in cfg.items() if key != '_scope_'}
    return [without_scope(value) for value in cfg] if isinstance(cfg, list) else cfg


def scope_of(setting: str) -> Any:
    """Names of parts resolve as in the package that trains there."""
    return DefaultScope.overwrite_default_scope(TABLE.settings[setting]['scope'])


def plain_path(network: str, setting: str) -> str:
    """The config of a network alone."""
    path: str = TABLE.settings[setting]['plain'].format(network=network)
    return path


def network(name: str, setting: str, device: str = 'cpu') -> Any:
    """A network, untrained and shared by all who ask: from its plain config, or from another package's zoo.

    On the device `meta` it has shapes and no values.
    """
    if setting in TABLE.networks[name].get('plain', []):
        model = content(plain_path(name, setting))['model']
    else:
        model = untrained(TABLE.zoo(name, setting))
    with scope_of(setting):
        return _network(json.dumps(model), device)  # settings share networks


@functools.cache
def _network(model: str, device: str) -> Any:
    cfg = ConfigDict(json.loads(model))
    with torch.device(device):
        return build_teacher(cfg).model if 'untrained' in cfg else MODELS.build(cfg)


def read_on(on: Any, sides: Iterable[str] = ('student', 'teacher')) -> dict[str, list[str]]:
    """The paths that `on` names, by side."""
    return {side: [str(tap) for tap in taps] for side, taps in read_sides(on, 'loss', sides=tuple(sides)).items()}


def record(model: Any, paths: Iterable[str], call: Any) -> dict[str, torch.Tensor]:
    """What is tapped at some paths while a model is called."""
    taps = {path: Tap.parse(path) for path in paths}
    recorded = Taps(model, [*taps.values()], clone=[*taps.values()])
    with recorded.recording(), torch.no_grad():
        call()
    values = recorded.values()
    return {path: values[tap] for path, tap in taps.items()}
