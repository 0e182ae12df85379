"""Makes the bridges: one-line files that let `read_base` configs inherit our text configs.

    python tools/bridges.py

For `from mmkd_plugin.configs.dkd_resnet import *` mmengine opens `configs/dkd_resnet.py` below the installed package,
without importing anything, and refuses a file that has `_base_`. So each config gets a file there that loads it. Git
does not keep them: building or installing the package makes them (`setup.py`), and so does every `make`
(`tools/setup_env.py`). Only the standard library is needed, since a package is built before anything is installed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / 'mmkd_plugin'
LINE = "globals().update(__import__('mmkd_plugin').load_config({!r}))\n"


def bridges(package: Path = PACKAGE) -> dict[str, str]:
    """Returns the bridges of a package by their paths below its `configs/`, and what stands in each.

    A module's name has no hyphens, so `-` becomes `_`. What lies in `_base_` is no config by itself.

    Raises:
        ValueError: If two configs would have the same bridge.
        FileNotFoundError: If the package has no configs.
    """
    source = package / '.mim' / 'configs'  # in a checkout a link to configs/
    made: dict[str, str] = {}
    for name in sorted(path.relative_to(source).as_posix() for path in source.rglob('*.py')):
        if '_base_' in name.split('/'):
            continue
        bridge = name.replace('-', '_')
        if bridge in made:
            raise ValueError(f"configs/{name} and another config would both be imported as '{bridge}': rename one")
        made[bridge] = LINE.format(name)
    if not made:
        raise FileNotFoundError(f'no configs in {source}, which is a link to ../../configs in a checkout: restore it')
    return made


def differing(package: Path = PACKAGE, into: Path | None = None) -> list[str]:
    """Returns which bridges are missing or stale in a folder (the package's `configs/` if none is given)."""
    folder, wanted = into or package / 'configs', bridges(package)
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob('*.py')}
    missing = [name for name, text in wanted.items() if name not in there or there[name].read_text() != text]
    return sorted({*missing, *(there.keys() - wanted.keys())})


def write(package: Path = PACKAGE, into: Path | None = None) -> list[str]:
    """Writes what is missing or stale, removes what belongs to no config, and returns what that was."""
    folder, wanted = into or package / 'configs', bridges(package)
    changed = differing(package, folder)
    for name in changed:
        path = folder / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name])
        else:
            path.unlink(missing_ok=True)  # two processes may be at it
    return changed


def main(argv: list[str] | None = None) -> int:
    """Writes the bridges of this checkout, and says how many changed."""
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=formatter).parse_args(argv)
    try:
        changed = write()
    except (ValueError, FileNotFoundError) as error:
        print(f'bridges: {error}', file=sys.stderr)
        return 1
    print(f'{PACKAGE / "configs"}: {len(bridges())} bridges, {len(changed)} of them new, changed or removed')
    return 0


if __name__ == '__main__':
    sys.exit(main())
