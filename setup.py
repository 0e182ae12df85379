"""Builds mmkd_plugin; what the package is stands in pyproject.toml."""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / 'mmkd_plugin'


class BuildPy(build_py):
    """Makes the bridges for `from mmkd_plugin.configs… import *` in `read_base`; see `tools/bridges.py`."""

    def run(self) -> None:
        """Makes them where the package's other modules lie when it is built."""
        super().run()
        # An editable install has no other folder than the checkout.
        into = PACKAGE if self.editable_mode else Path(self.build_lib) / PACKAGE.name
        runpy.run_path(str(ROOT / 'tools' / 'bridges.py'))['write'](PACKAGE, into / 'configs')


class EditableWheel(editable_wheel):
    """Lets mmengine find the checkout of an editable install, where the bridges are.

    Upstream mmengine joins site-packages and the first line of top_level.txt. An editable install has no such folder;
    but joining an absolute path gives that path.
    """

    def _ensure_dist_info(self) -> None:
        super()._ensure_dist_info()
        Path(self.dist_info_dir, 'top_level.txt').write_text(f'{PACKAGE}\n')


setup(cmdclass={'build_py': BuildPy, 'editable_wheel': EditableWheel})
