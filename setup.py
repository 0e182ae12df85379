"""Builds mmkd_plugin; what the package is stands in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.editable_wheel import editable_wheel


class EditableWheel(editable_wheel):
    """Lets mmengine find the checkout of an editable install, for `from mmkd_plugin.configs… import *` in `read_base`.

    Upstream mmengine joins site-packages and the first line of top_level.txt. An editable install has no such folder;
    but joining an absolute path gives that path.
    """

    def _ensure_dist_info(self) -> None:
        super()._ensure_dist_info()
        package = Path(__file__).resolve().parent / 'mmkd_plugin'
        Path(self.dist_info_dir, 'top_level.txt').write_text(f'{package}\n')


setup(cmdclass={'editable_wheel': EditableWheel})
