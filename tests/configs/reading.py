"""Reading our configs, each once."""

import copy
import functools
from pathlib import Path

from mmengine.config import Config
from mmengine.hub import get_config

CONFIGS = Path(__file__).parents[2] / 'configs'


def load(name: str | Path) -> Config:
    """A config by its path below ``configs/``; a copy that may be changed."""
    return copy.deepcopy(_load(str(name)))


@functools.cache
def _load(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def zoo(name: str, pretrained: bool = False) -> Config:
    """Another package's config, with the address of its weights; a copy. Nothing is downloaded."""
    return copy.deepcopy(_zoo(name, pretrained))


@functools.cache
def _zoo(name: str, pretrained: bool) -> Config:
    return get_config(name, pretrained=pretrained)


def lines(name: str | Path) -> int:
    """Lines of a config, without blank ones and comments."""
    text = (line.strip() for line in (CONFIGS / name).read_text().splitlines())
    return sum(bool(line) and not line.startswith('#') for line in text)
