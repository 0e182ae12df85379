"""What a wheel, an sdist and an editable install hold, and where the pins come from."""

from __future__ import annotations

import re
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

import pytest

import mmkd_plugin
from mmkd_plugin.version import __version__
from tests.building import ROOT, build, copy_checkout, unpacked

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
    return copy_checkout(tmp_path_factory.mktemp('checkout'))


def content(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def expected():
    """Everything that an installed package needs, by its name in a wheel."""
    package = [path for path in (ROOT / 'mmkd_plugin').rglob('*.py') if not {'.mim', 'configs'} & {*path.parts[-9:]}]
    configs = [f'mmkd_plugin/.mim/{path.relative_to(ROOT)}' for path in (ROOT / 'configs').rglob('*.*')]
    tools = {path for path in (ROOT / 'tools').glob('*.*') if path.name not in of_a_checkout()}
    configs += [f'mmkd_plugin/.mim/{path.relative_to(ROOT)}' for path in tools]
    data = [*(ROOT / 'mmkd_plugin' / 'checkpoints').rglob('*.*'), ROOT / 'mmkd_plugin' / 'py.typed']
    assert configs
    return {*configs, *expected_bridges(), *(str(path.relative_to(ROOT)) for path in [*package, *data])}


def of_a_checkout():
    """Tools that are about a checkout, and stay there."""
    return set(re.findall(r'"\.mim/tools/(\w+\.py)"', PYPROJECT))


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


@pytest.mark.parametrize('name', ['configs', 'tools'])
def test_folders_are_linked_into_the_package(name):
    link = ROOT / 'mmkd_plugin' / '.mim' / name
    assert link.is_symlink()
    assert str(link.readlink()) == f'../../{name}'


def test_what_is_kept_out_of_a_wheel_is_there():
    assert {'setup_env.py', 'bridges.py'} <= of_a_checkout() < {path.name for path in (ROOT / 'tools').glob('*.py')}


def test_version_is_the_installed_one():
    assert version('mmkd_plugin') == __version__ == mmkd_plugin.__version__


def test_the_changelog_begins_with_this_version():
    released = re.findall(r'^## \[([\d.]+)\] - \d{4}-\d\d-\d\d$', (ROOT / 'CHANGELOG.md').read_text(), re.M)
    assert released[0] == __version__


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
    assert not {f'mmkd_plugin/.mim/tools/{name}' for name in of_a_checkout()} & found
    assert {name.split('/')[0].split('-')[0] for name in found} == {'mmkd_plugin'}
    with zipfile.ZipFile(tmp_path / f'mmkd_plugin-{__version__}-py3-none-any.whl') as archive:
        scripts = archive.read(f'mmkd_plugin-{__version__}.dist-info/entry_points.txt').decode()
    assert scripts.split() == ['[console_scripts]', 'mmkd', '=', 'mmkd_plugin.command:main']
    assert not (checkout / 'mmkd_plugin' / 'configs').exists()


def test_wheel_from_an_sdist_is_the_same(checkout, tmp_path):
    direct = content(build('wheel', checkout, tmp_path))
    source = unpacked(build('sdist', checkout, tmp_path), tmp_path)
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
