"""The parts of tools/setup_env.py that decide; what they decide upon is described, not installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tools import setup_env
from tools.setup_env import Env, SetupError, canonical, digest, find_wheel, lacking, preflight, wheel_dir


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Keeps logs out of the checkout."""
    monkeypatch.setattr(setup_env, 'WORK', tmp_path / 'work')
    return tmp_path / 'work'


@pytest.fixture
def env(tmp_path):
    """A folder that looks like an environment of this python; its python is this one."""
    path = tmp_path / 'env'
    (path / 'bin').mkdir(parents=True)
    (path / 'bin' / 'python').symlink_to(sys.executable)
    return Env(path)


def test_requirements_have_no_comments():
    assert 'mmcv==2.1.0' in setup_env.requirements('openmmlab')
    assert not any('#' in line for line in setup_env.requirements('openmmlab'))


@pytest.mark.parametrize('written', ['Foo_bar==1.0', 'foo-bar>=2; python_version < "3.11"', 'foo.bar', 'foo-bar [x]'])
def test_names_are_compared_in_one_form(written):
    assert canonical(written) == 'foo-bar'


def test_a_wheel_is_kept_for_one_torch_and_one_kind_of_ops(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    here = wheel_dir('2.12.0+cu130', 'cpu')
    assert here.is_relative_to(tmp_path)
    assert f'cp{sys.version_info[0]}{sys.version_info[1]}' in here.name
    assert len({here, wheel_dir('2.12.0+cpu', 'cpu'), wheel_dir('2.12.0+cu130', 'cuda')}) == 3
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert wheel_dir('2.12.0', 'cpu').is_relative_to(Path.home() / '.cache')


def test_find_wheel(tmp_path):
    assert find_wheel(tmp_path / 'nowhere', 'onedl-mmcv==2.3.6') is None
    wheel = tmp_path / 'cp311-torch2.12.0-cpu' / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl'
    wheel.parent.mkdir()
    wheel.touch()
    assert find_wheel(wheel.parent, 'onedl-mmcv==2.3.6') == wheel
    assert find_wheel(tmp_path, 'onedl-mmcv==2.3.6', under='cp311-torch2.12.0*/') == wheel
    assert find_wheel(wheel.parent, 'onedl-mmcv==2.3.60') is None
    assert find_wheel(wheel.parent, 'mmcv==2.3.6') is None
    assert find_wheel(tmp_path, 'onedl-mmcv==2.3.6', under='cp311-torch2.9*/') is None


def test_digest_changes_with_everything_that_matters(monkeypatch, tmp_path):
    first = digest('torch==2.12.0', 'onedl', files=['onedl'])
    assert digest('torch==2.12.0', 'onedl', files=['onedl']) == first
    others = {
        digest('torch==2.9.1', 'onedl', files=['onedl']),
        digest('torch==2.12.0', 'onedl', files=['onedl', 'tests']),
        digest('torch==2.12.0', 'openmmlab', files=['openmmlab']),
    }
    monkeypatch.setattr(setup_env, 'PY', '3.99')
    others.add(digest('torch==2.12.0', 'onedl', files=['onedl']))
    monkeypatch.undo()
    monkeypatch.setattr(setup_env, 'ROOT', tmp_path)
    (tmp_path / 'requirements').mkdir()
    (tmp_path / 'requirements' / 'onedl.txt').write_text('onedl-mmcv==9')
    others.add(digest('torch==2.12.0', 'onedl', files=['onedl']))
    assert len(others | {first}) == 6


def test_comments_do_not_change_the_digest(monkeypatch, tmp_path):
    monkeypatch.setattr(setup_env, 'ROOT', tmp_path)
    (tmp_path / 'requirements').mkdir()
    file = tmp_path / 'requirements' / 'onedl.txt'
    file.write_text('a==1\n')
    first = digest(files=['onedl'])
    file.write_text('# why\na==1\n\n')
    assert digest(files=['onedl']) == first


def test_complete_only_with_the_right_stamp(env):
    assert not env.is_complete('x')
    env.finish('x')
    assert env.is_complete('x')
    assert not env.is_complete('y')
    env.python.unlink()
    assert not env.is_complete('x')


def test_usable_unless_a_run_was_killed_in_it(env):
    assert env.is_usable()
    env.marker.touch()
    assert not env.is_usable()


def test_an_environment_of_another_python_is_not_usable(env, monkeypatch):
    monkeypatch.setattr(setup_env, 'PY', '3.99')
    assert not env.is_usable()


def test_a_venv_without_pip_is_not_usable(env):
    env.python.unlink()
    env.python.write_text('#!/bin/sh\nexit 1\n')
    env.python.chmod(0o755)
    assert not env.is_usable()


def test_marker_stays_when_killed_and_goes_when_pip_fails(env, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_env, 'run', killed)
    with pytest.raises(KeyboardInterrupt):
        env.pip('install', 'x')
    assert env.marker.exists()

    def failed(*_):
        raise SetupError

    monkeypatch.setattr(setup_env, 'run', failed)
    with pytest.raises(SetupError):
        env.pip('install', 'x')
    assert not env.marker.exists()


def test_a_new_start_takes_the_stamp_away(env):
    env.finish('x')
    env.create()
    assert not env.stamp.exists()


def test_what_is_borrowed_stays_out_of_isolated_builds(tmp_path, work):
    """A package that another one's build met where it should have been alone."""
    torch_env, env = Env(tmp_path / 'torch'), Env(tmp_path / 'stack')
    torch_env.site_packages.mkdir(parents=True)
    (torch_env.site_packages / 'lent.py').write_text('')
    env.create()
    env.borrow(torch_env)
    package = tmp_path / 'package'
    package.mkdir()
    (package / 'pyproject.toml').write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (package / 'backend.py').write_text(
        'import importlib.util\n'
        'def get_requires_for_build_wheel(settings=None): return []\n'
        'def build_wheel(folder, settings=None, metadata=None):\n'
        '    open("met", "w").write(str(importlib.util.find_spec("lent") is not None))\n'
    )
    for options, met in (([], 'False'), (['--no-build-isolation'], 'True')):
        command = [env.python, '-m', 'pip', 'wheel', '--no-index', '--no-deps', *options, '-w', tmp_path, package]
        subprocess.run(list(map(str, command)), check=False, capture_output=True, cwd=package)
        assert (package / 'met').read_text() == met
    assert env.ask('import lent; print("there")') == 'there'


def test_a_new_start_borrows_anew(env, tmp_path):
    """Else pip would count what is borrowed as installed."""
    env.site_packages.mkdir(parents=True)
    env.borrow(Env(tmp_path / 'torch'))
    assert env.link.read_text() == f'{tmp_path}/torch/lib/python{setup_env.PY}/site-packages\n'
    env.create()
    assert not env.link.exists()


def test_a_borrowed_environment_holds_what_was_asked_for_alone(tmp_path, work, monkeypatch):
    torch_env = Env(tmp_path / 'torch')
    asked = []
    installer = Env(tmp_path / 'stack')
    monkeypatch.setattr(Env, 'pip', lambda self, label, *arguments: asked.append((self, arguments)))
    torch_env.path.mkdir()
    torch_env.finish('old')
    torch_env.fill(installer, 'install torch', 'torch==1')
    assert asked == [(installer, ('--ignore-installed', '--prefix', torch_env.path, 'torch==1'))]
    assert not torch_env.stamp.exists()
    assert list(torch_env.site_packages.iterdir()) == [], 'neither pip nor setuptools'


def test_docs_are_added_to_a_complete_environment(env, monkeypatch):
    def ended(by):
        def run(label, command, environ=None):
            assert str(command[-1]).endswith('requirements/docs.txt')
            assert not env.is_complete('x')  # should it be killed now
            if by is not None:
                raise by

        return run

    for by in (SetupError, KeyboardInterrupt):
        env.finish('x')
        monkeypatch.setattr(setup_env, 'run', ended(by))
        with pytest.raises(by):
            setup_env.add_docs(env, 'docs')
        assert env.is_complete('x') == (by is SetupError)
        assert not env.docs_stamp.exists()
    env.finish('x')
    monkeypatch.setattr(setup_env, 'run', ended(None))
    setup_env.add_docs(env, 'docs')
    assert env.is_complete('x')
    assert env.docs_stamp.read_text() == 'docs'


def test_active_environment_is_left_alone(tmp_path):
    env = Env(tmp_path, active=True)
    env.marker.touch()
    env.create()
    assert list(tmp_path.iterdir()) == [env.marker]
    assert env.python == Path(sys.executable)


def test_active_environment_keeps_its_versions():
    lines = lacking('onedl', {'onedl-mmengine', 'torchvision'})
    assert 'onedl-mmcv==2.3.6' in lines
    assert not any('mmengine' in line or 'torchvision' in line for line in lines)


def test_active_environment_with_the_other_stack_is_refused():
    with pytest.raises(SetupError, match=r'holds mmdet.*STACK=openmmlab'):
        lacking('onedl', {'mmdet', 'torchvision', 'setuptools'})


def test_preflight(monkeypatch, tmp_path):
    preflight(compiles=False, gigabytes=0, where=tmp_path)
    with pytest.raises(SetupError, match='GB free'):
        preflight(compiles=False, gigabytes=10**9, where=tmp_path)
    monkeypatch.setenv('PATH', str(tmp_path))
    preflight(compiles=False, gigabytes=0, where=tmp_path)
    with pytest.raises(SetupError, match=r'apt-get install g\+\+'):
        preflight(compiles=True, gigabytes=0, where=tmp_path)


def test_preflight_wants_headers(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, 'which', lambda name: name)
    monkeypatch.setattr(sysconfig, 'get_path', lambda name: str(tmp_path))
    with pytest.raises(SetupError, match='python3-dev'):
        preflight(compiles=True, gigabytes=0, where=tmp_path)


def test_run_keeps_the_output_and_shows_its_end(work):
    setup_env.run('say it', [sys.executable, '-c', 'print("hello")'])
    assert (work / 'logs' / 'say-it.log').read_text() == 'hello\n'
    code = 'import sys; [print("line", i) for i in range(30)]; sys.exit(3)'
    with pytest.raises(SetupError, match=r'break it failed; .*break-it\.log') as caught:
        setup_env.run('break it', [sys.executable, '-c', code])
    assert '| line 29' in str(caught.value)
    assert '| line 9\n' not in str(caught.value)


def test_run_ends_what_it_started_when_interrupted(work, monkeypatch, tmp_path):
    def interrupt(self, timeout=None):
        while not (tmp_path / 'pid').exists() or not (tmp_path / 'pid').read_text():
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, 'join', interrupt)
    with pytest.raises(KeyboardInterrupt):
        setup_env.run('sleep', ['sh', '-c', f'echo $$ > {tmp_path}/pid; sleep 60'])
    pid = int((tmp_path / 'pid').read_text())
    with suppress(ChildProcessError):  # python may have waited for it already
        os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_wrong_python_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'version_info', (3, 13, 0))
    monkeypatch.setattr(sys, 'argv', ['setup_env.py'])
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    assert setup_env.main() == 1
    assert 'PYTHON=' in capsys.readouterr().err
