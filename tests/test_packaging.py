"""What a wheel, an sdist and an editable install hold, and where the pins come from."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

import pytest

import mmkd_plugin
from mmkd_plugin.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / 'pyproject.toml').read_text()
FAMILIES = {
    'onedl': {'onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection', 'onedl-mmpretrain'},
    'openmmlab': {'mmcv', 'mmengine', 'mmdet', 'mmpretrain'},
}


def lines(name):
    text = (ROOT / 'requirements' / f'{name}.txt').read_text()
    return [line for line in text.splitlines() if line and not line.startswith('#')]


def names(name):
    return {re.split('[=<>;]', line)[0] for line in lines(name)}


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A copy of what git would hold, since building writes into the folder it builds from."""
    copy = tmp_path_factory.mktemp('checkout') / 'mmkd_plugin'
    ignore = shutil.ignore_patterns(
        '.*cache*', '.venv*', '.git', '.setup_env', '*.egg-info', 'work_dirs', '__pycache__', 'build'
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignore)
    for made in ('dist', 'mmkd_plugin/configs'):  # there are folders of recipes that are called dist, too
        shutil.rmtree(copy / made, ignore_errors=True)
    return copy


def build(kind, source, into):
    """Calls the build backend as pip does, without a network."""
    code = f'import setuptools.build_meta as b, sys; print(b.build_{kind}(sys.argv[1]))'
    done = subprocess.run([sys.executable, '-c', code, into], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return Path(into) / done.stdout.split()[-1]


def content(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def expected():
    """Everything that an installed package needs, by its name in a wheel."""
    package = [path for path in (ROOT / 'mmkd_plugin').rglob('*.py') if not {'.mim', 'configs'} & {*path.parts[-9:]}]
    configs = [f'mmkd_plugin/.mim/{path.relative_to(ROOT)}' for path in (ROOT / 'configs').rglob('*.*')]
    data = [*(ROOT / 'mmkd_plugin' / 'checkpoints').rglob('*.*'), ROOT / 'mmkd_plugin' / 'py.typed']
    assert configs
    return {*configs, *expected_bridges(), *(str(path.relative_to(ROOT)) for path in [*package, *data])}


def expected_bridges():
    """What `read_base` configs import: a module for each config, whose name has no hyphen."""
    configs = (path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py'))
    return {f'mmkd_plugin/{path}'.replace('-', '_') for path in configs if '_base_' not in path.parts}


def bridges(names):
    return {name for name in names if name.startswith('mmkd_plugin/configs/')}


def test_the_core_needs_no_openmmlab_distribution():
    assert names('runtime') == {'torch', 'numpy', 'safetensors'}


@pytest.mark.parametrize('stack', FAMILIES)
def test_a_stack_pins_its_own_family_only(stack):
    other = FAMILIES['onedl' if stack == 'openmmlab' else 'openmmlab']
    assert FAMILIES[stack] <= names(stack)
    assert not other & names(stack)
    assert all('==' in line for line in lines(stack) if line.split('==')[0] in FAMILIES[stack])


def test_every_requirements_file_is_read_and_nothing_is_written_twice():
    for file in (ROOT / 'requirements').glob('*.txt'):
        assert f'requirements/{file.name}' in PYPROJECT
    assert '==' not in PYPROJECT.split('[tool.ruff]')[0]


def test_configs_are_linked_into_the_package():
    link = ROOT / 'mmkd_plugin' / '.mim' / 'configs'
    assert link.is_symlink()
    assert str(link.readlink()) == '../../configs'


def test_version_is_the_installed_one():
    assert version('mmkd_plugin') == __version__ == mmkd_plugin.__version__


def test_installed_metadata_holds_the_extras():
    required = ' '.join(requires('mmkd_plugin') or []).replace(' ', '')
    assert 'onedl-mmcv==2.3.6;extra=="onedl"' in required
    assert 'mmcv==2.1.0;extra=="openmmlab"' in required


@pytest.mark.openmmlab
def test_mmengine_finds_the_package():
    from mmengine.utils import get_installed_path

    assert Path(get_installed_path('mmkd_plugin')).samefile(ROOT / 'mmkd_plugin')


def test_bridges_are_not_kept_in_git():
    assert '/mmkd_plugin/configs/' in (ROOT / '.gitignore').read_text().splitlines()


def test_wheel_holds_everything_as_real_files(checkout, tmp_path):
    found = content(build('wheel', checkout, tmp_path))
    assert expected() <= found
    assert bridges(found) == expected_bridges()
    assert {name.split('/')[0].split('-')[0] for name in found} == {'mmkd_plugin'}
    assert not (checkout / 'mmkd_plugin' / 'configs').exists()


def test_wheel_from_an_sdist_is_the_same(checkout, tmp_path):
    direct = content(build('wheel', checkout, tmp_path))
    sdist = build('sdist', checkout, tmp_path)
    shutil.unpack_archive(sdist, tmp_path)
    source = tmp_path / sdist.name.removesuffix('.tar.gz')
    assert not (source / 'mmkd_plugin' / 'configs').exists()
    assert content(build('wheel', source, tmp_path)) == direct


def test_editable_install_has_its_bridges_where_mmengine_looks(checkout, tmp_path):
    stale = checkout / 'mmkd_plugin' / 'configs' / 'removed_since.py'
    stale.parent.mkdir(exist_ok=True)
    stale.touch()
    assert bridges(content(build('wheel', checkout, tmp_path))) == expected_bridges()  # the checkout's are not packed
    with zipfile.ZipFile(build('editable', checkout, tmp_path)) as archive:
        top_level = next(name for name in archive.namelist() if name.endswith('top_level.txt'))
        (package,) = archive.read(top_level).decode().splitlines()
    assert package == str(checkout / 'mmkd_plugin')
    made = {str(path.relative_to(checkout)) for path in Path(package, 'configs').rglob('*.py')}
    assert made == expected_bridges()
