"""What installed packages say of their trained models: `.mim/model-index.yml` and the metafiles that it names."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.fileio import load

#: The packages whose model zoos are looked into.
PACKAGES = ('mmkd_plugin', 'mmpretrain', 'mmdet')
#: By task of a metafile, the metric that models of that task are compared by, in %.
METRICS = {'Image Classification': 'Top 1 Accuracy', 'Object Detection': 'box AP'}


@dataclass(frozen=True)
class Published:
    """One model of a model zoo.

    Attributes:
        package: Where it is published.
        name: As its metafile calls it.
        config: Path of its config below the package's ``configs/``.
        path: The file of its config.
        weights: Address or path of its weights; None where there are none, or several files.
        metrics: By task, the data set and the value of that task's metric in %.
        parameters: As published; None where nothing is.
        flops: Multiply-adds of one image, as published; None where nothing is.
    """

    package: str
    name: str
    config: str
    path: Path
    weights: str | None
    metrics: Mapping[str, tuple[str, float]]
    parameters: int | None
    flops: int | None

    @property
    def spec(self) -> str:
        """The config as ``teacher=`` takes it."""
        return f'{self.package}::{self.config}'

    @property
    def line(self) -> str:
        """What a distilled config says to have it as its teacher."""
        if self.package == 'mmkd_plugin':  # its weights lie beside the configs
            return f"teacher=dict(config='{self.spec}')"
        return f"teacher=dict(config='{self.spec}', checkpoint='{self.weights}')"


def installed() -> list[str]:
    """Those of :data:`PACKAGES` that are there."""
    return [package for package in PACKAGES if _root(package) is not None]


def published(package: str) -> list[Published]:
    """All models of a package's zoo that have a config, in its order.

    Args:
        package: One that is installed.

    Returns:
        Empty where the package was installed without metafiles.
    """
    root = _root(package)
    index = root / '.mim' / 'model-index.yml' if root else None
    if root is None or index is None or not index.is_file():
        return []
    found = []
    for metafile in _read(index).get('Import') or ():
        path = root / '.mim' / metafile
        models = _read(path).get('Models') if path.is_file() else None
        found += [_model(package, root, cfg) for cfg in models or () if cfg.get('Config')]
    return found


def _root(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders))) if folders else None


def _read(path: Path) -> dict[str, Any]:
    content = load(path)
    return content if isinstance(content, dict) else {'Models': content}


def _model(package: str, root: Path, cfg: Mapping[str, Any]) -> Published:
    weights, meta = cfg.get('Weights'), cfg.get('Metadata') or {}
    if isinstance(weights, str) and '://' not in weights:
        weights = str(root / weights)
    metrics = {}
    for result in cfg.get('Results') or ():
        task, values = str(result.get('Task')), result.get('Metrics')
        value = values.get(METRICS.get(task)) if isinstance(values, Mapping) else None
        if isinstance(value, (int, float)):
            metrics[task] = str(result.get('Dataset')), float(value)
    return Published(
        package,
        str(cfg.get('Name')),
        str(cfg['Config']).partition('/')[-1],
        root / '.mim' / str(cfg['Config']),
        weights if isinstance(weights, str) else None,
        metrics,
        _whole(meta.get('Parameters')),
        _whole(meta.get('FLOPs')),
    )


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and value > 0 else None
