"""Which of mmdet's own configs are looked at: chosen by their names, so that nothing is imported or read."""

import difflib
import importlib.util
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

# the sizes that a family is best known by, or the smallest of it
_USUAL = re.compile(r'(^|[_-])(r50|tiny|t|s50)($|[_-])')
# where a folder has configs of several methods, those of the most usual detectors
_PLAIN = ('faster-rcnn', 'retinanet', 'mask-rcnn')


def config_folder() -> Path:
    """Where mmdet has its own configs.

    Raises:
        ModuleNotFoundError: If mmdet is not installed.
    """
    spec = importlib.util.find_spec('mmdet')
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError('mmdet is not installed; python -m mmkd_plugin.doctor shows what is')
    return Path(spec.origin).parent / '.mim' / 'configs'


def all_configs(root: Path) -> list[str]:
    """Every config of a detector, ``gfl/gfl_r50_fpn_1x_coco.py``, in order of its family (the folder) and name."""
    paths = (path.relative_to(root) for path in sorted(root.glob('*/*.py')))
    return [str(path) for path in paths if path.parts[0] not in ('_base_', 'common') and not path.stem.endswith('_tta')]


def family_of(config: str) -> str:
    """The folder that a config lies in."""
    return config.partition('/')[0]


def method_of(config: str) -> str:
    """The first word of its name.

    Example:
        >>> method_of('hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py')
        'faster-rcnn'
    """
    return Path(config).stem.partition('_')[0]


def plainest(configs: Iterable[str]) -> str:
    """The one of a family that is most like others': by method, then by size, then by the shortest name.

    Example:
        >>> plainest(['gfl/gfl_x101_fpn_1x.py', 'gfl/gfl_r50_fpn_ms-2x.py', 'gfl/gfl_r50_fpn_1x.py'])
        'gfl/gfl_r50_fpn_1x.py'
    """
    return min(configs, key=_order)


def _order(config: str) -> tuple[int, bool, int, str]:
    method, name = method_of(config), Path(config).stem
    if method.startswith(family_of(config).replace('_', '-')):
        rank = 0
    else:
        rank = 1 + (_PLAIN.index(method) if method in _PLAIN else len(_PLAIN))
    return rank, not _USUAL.search(name), len(name), name


def representatives(configs: Sequence[str]) -> list[str]:
    """The plainest of each family, and of each method that these leave out.

    Args:
        configs: As of :func:`all_configs`.
    """
    families = _grouped(configs, family_of)
    chosen = {plainest(group) for group in families.values()}
    methods = _grouped(configs, method_of)
    seen = {method_of(config) for config in chosen}
    chosen |= {plainest(group) for method, group in methods.items() if method not in seen}
    return sorted(chosen)


def _grouped(configs: Sequence[str], by: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for config in configs:
        groups.setdefault(by(config), []).append(config)
    return groups


def named(names: Sequence[str], configs: Sequence[str]) -> list[str]:
    """What was asked for.

    Args:
        names: Families (their representatives) or configs; none means the representatives of all.
        configs: As of :func:`all_configs`.

    Raises:
        ValueError: If there is no such family or config.
    """
    usual = representatives(configs)
    if not names:
        return usual
    families = dict.fromkeys(map(family_of, configs))
    chosen: list[str] = []
    for name in names:
        wanted = name.removeprefix('mmdet::').rstrip('/')
        if wanted in families:
            chosen += [config for config in usual if family_of(config) == wanted]
        elif wanted in configs:
            chosen.append(wanted)
        else:
            near = difflib.get_close_matches(wanted, [*families, *configs], n=3)
            raise ValueError(
                f"mmdet has no family and no config '{name}'; expected a folder of its configs, such as gfl, or "
                'gfl/gfl_r50_fpn_1x_coco.py' + (f'. Near: {", ".join(near)}' if near else '')
            )
    return list(dict.fromkeys(chosen))
