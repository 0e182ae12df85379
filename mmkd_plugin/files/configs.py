"""Finding config files by name: ours, other packages', the user's."""

import difflib
import importlib.util
from pathlib import Path

from mmengine.config import Config

_CONFIGS = Path(__file__).parents[1] / '.mim' / 'configs'
_CHECKPOINTS = Path(__file__).parents[1] / 'checkpoints'
_KINDS = ('.py', '.json', '.yaml', '.yml')


def config_path(name: str) -> str:
    """Absolute path of one of our configs, for ``_base_`` in a config of your own.

    ``_base_ = __import__('mmkd_plugin').config_path('dkd_resnet.py')`` works with any
    ``train.py``, wherever this package is installed.

    Args:
        name: Path below ``configs/``, such as ``dkd_resnet.py``.

    Raises:
        FileNotFoundError: If there is none, with the names there are.
    """
    path = (_CONFIGS / name).resolve()
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else _CONFIGS.resolve()
        there = sorted(p.name for p in folder.iterdir())
        raise FileNotFoundError(f"mmkd_plugin has no config '{name}'. In {folder}: {', '.join(there)}")
    return str(path)


def load_config(name: str) -> dict:
    """One of our configs as plain keys and values, all of its bases merged.

    ``mmkd_plugin/configs/*.py``, which ``tools/bridges.py`` makes, are this call, so that ``read_base``
    configs can inherit too.
    """
    return Config.fromfile(config_path(name), import_custom_modules=False).to_dict()


def read_config(name: str) -> tuple[Config, str | None]:
    """A config from a path or from ``package::path``, and its published weights if it names any.

    Args:
        name: ``my/config.py``, ``mmpretrain::resnet/resnet34_8xb32_in1k.py`` or
            ``mmkd_plugin::digits/resnet_teacher.py``.

    Returns:
        The config, and the address of the model zoo's weights (None where there are none).

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If the package is not installed.
        ValueError: If it is a file of another kind.
    """
    package, separator, rest = name.partition('::')
    if package == 'mmkd_plugin' and separator:
        # our model zoo: checkpoints/ mirrors configs/
        shipped = (_CHECKPOINTS / rest).with_suffix('.pth')
        return Config.fromfile(config_path(rest)), str(shipped) if shipped.is_file() else None
    if separator:
        # asked here because mmengine's get_config would run pip on its own
        if not package or importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"config '{name}' needs the package {package}, which is not installed; "
                'python -m mmkd_plugin.doctor shows what is'
            )
        from mmengine.hub import get_config

        try:
            if '/' not in rest:  # mmengine would call it a misspelt name of a package
                raise FileNotFoundError(rest)
            config = get_config(name, pretrained=True)
        except AssertionError:  # listed in the model zoo, but without weights
            config = get_config(name)
        except FileNotFoundError as error:
            near = _near_configs(package, rest)
            raise FileNotFoundError(
                f"{package} has no config '{rest}'" + (f'; near names: {", ".join(near)}' if near else '')
            ) from error
        return config, config.get('model_path')
    path = Path(name).expanduser()
    if path.is_dir():
        there = ', '.join(sorted(p.name for p in path.iterdir() if p.suffix in _KINDS)[:8])
        raise FileNotFoundError(f"config '{name}' is a folder, expected a file. In it: {there or 'no configs'}")
    if not path.is_file():
        raise FileNotFoundError(
            f"config '{name}' does not exist (looked at {path.absolute()}); a config inside a "
            "package is named as 'mmpretrain::resnet/resnet34_8xb32_in1k.py'"
        )
    if path.suffix not in _KINDS:
        raise ValueError(f"config '{name}' is no config, expected a file that ends with {', '.join(_KINDS)}")
    return Config.fromfile(str(path)), None


def _near_configs(package: str, name: str) -> list[str]:
    """Configs of a package whose names are like one that does not exist."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    root = Path(folders[0] if folders else '.') / '.mim' / 'configs'
    return difflib.get_close_matches(name, [str(path.relative_to(root)) for path in root.rglob('*.py')], n=3)
