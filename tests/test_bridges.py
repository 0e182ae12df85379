"""The one-line files that let `read_base` configs inherit ours: made, kept up to date, and never two of a name."""

from __future__ import annotations

import re
import signal
import sys

import pytest

from tools import bridges, setup_env


@pytest.fixture
def package(tmp_path):
    """A package with three configs, one of them a base."""
    source = tmp_path / 'package' / '.mim' / 'configs'
    for name in ('kd_a.py', 'plain/wrn-16-2.py', '_base_/runtime.py'):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    return tmp_path / 'package'


def made(package):
    return {path.relative_to(package / 'configs').as_posix() for path in (package / 'configs').rglob('*.py')}


def test_this_checkout_has_them_all():
    assert bridges.differing() == [], 'a config was added, renamed or removed: `python tools/bridges.py` mends it'


def test_a_module_for_each_config(package):
    assert bridges.write(package) == ['kd_a.py', 'plain/wrn_16_2.py']
    assert made(package) == {'kd_a.py', 'plain/wrn_16_2.py'}
    line = "globals().update(__import__('mmkd_plugin').load_config('plain/wrn-16-2.py'))\n"
    assert (package / 'configs/plain/wrn_16_2.py').read_text() == line


def test_what_is_right_is_not_written_again(package):
    bridges.write(package)
    written = (package / 'configs/kd_a.py').stat().st_mtime_ns
    assert bridges.write(package) == bridges.differing(package) == []
    assert (package / 'configs/kd_a.py').stat().st_mtime_ns == written


def test_changes_are_followed(package):
    bridges.write(package)
    (package / '.mim/configs/kd_a.py').rename(package / '.mim/configs/kd_b.py')
    (package / 'configs/plain/wrn_16_2.py').write_text('broken')
    assert bridges.write(package) == ['kd_a.py', 'kd_b.py', 'plain/wrn_16_2.py']
    assert made(package) == {'kd_b.py', 'plain/wrn_16_2.py'}
    assert bridges.differing(package) == []


def test_into_another_folder(package, tmp_path):
    bridges.write(package, tmp_path / 'build')
    assert (tmp_path / 'build/plain/wrn_16_2.py').is_file()
    assert not (package / 'configs').exists()


def test_two_configs_of_one_module_are_refused(package):
    (package / '.mim/configs/plain/wrn_16-2.py').touch()
    with pytest.raises(ValueError, match=r"plain/wrn_16-2.py.*'plain/wrn_16_2.py': rename one"):
        bridges.write(package)


def test_a_checkout_without_the_link_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bridges, 'PACKAGE', tmp_path)
    monkeypatch.setattr(bridges.write, '__defaults__', (tmp_path, None))
    assert bridges.main([]) == 1
    assert re.search(r'no configs in .*restore it', capsys.readouterr().err)


def test_setup_makes_them_though_the_environment_is_complete(monkeypatch, tmp_path):
    folder = bridges.PACKAGE / 'configs'
    monkeypatch.setattr(setup_env, 'setup', lambda *_: None)
    monkeypatch.setattr(sys, 'argv', ['setup_env.py', '--env', str(tmp_path)])
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    stale = folder / 'no_config_of_this_name.py'
    folder.mkdir(exist_ok=True)
    stale.touch()
    assert setup_env.main() == 0
    assert not stale.exists()
    assert bridges.differing() == []
