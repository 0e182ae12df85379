"""Building this package as pip does, from a copy of the checkout, since building writes into the folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy_checkout(into: Path) -> Path:
    """A copy of what git would hold."""
    copy = into / 'mmkd_plugin'
    ignore = shutil.ignore_patterns(
        '.*cache*', '.venv*', '.git', '.setup_env', '*.egg-info', 'work_dirs', '__pycache__', 'build'
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignore)
    for made in ('dist', 'mmkd_plugin/configs'):  # there are folders of recipes that are called dist, too
        shutil.rmtree(copy / made, ignore_errors=True)
    return copy


def build(kind: str, source: Path, into: Path) -> Path:
    """A 'wheel', an 'sdist' or an 'editable', by the build backend and without a network."""
    code = f'import setuptools.build_meta as b, sys; print(b.build_{kind}(sys.argv[1]))'
    done = subprocess.run([sys.executable, '-c', code, into], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return Path(into) / done.stdout.split()[-1]


def unpacked(sdist: Path, into: Path) -> Path:
    """The folder of an sdist's files."""
    shutil.unpack_archive(sdist, into)
    return into / sdist.name.removesuffix('.tar.gz')


def make_environment(path: Path) -> Path:
    """An environment that sees the packages of this one, but not this checkout; returns its python.

    Editable installs are found by `.pth` files, which python does not read in folders that another such file names.
    """
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', path], check=True)
    (site,) = path.glob('lib/python*/site-packages')
    seen = [folder for folder in map(Path, sys.path) if folder.name in ('site-packages', 'dist-packages')]
    (site / '_seen.pth').write_text('\n'.join(map(str, seen)))
    for folder in seen:
        if (distutils := folder / 'distutils-precedence.pth').is_file():  # of setuptools, for python 3.12
            shutil.copy(distutils, site)
    return path / 'bin' / 'python'


def install(wheel: Path, python: Path) -> None:
    """Installs a wheel alone."""
    options = ['-q', '--disable-pip-version-check', '--no-deps', '--no-index']
    subprocess.run([sys.executable, '-m', 'pip', '--python', python, 'install', *options, wheel], check=True)
