"""The package as an sdist's wheel brings it into an environment that has never seen a checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.building import ROOT, build, copy_checkout, install, make_environment, unpacked
from tests.end_to_end.helpers import options, tiny_options

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

TEXT = """
_base_ = __import__('mmkd_plugin').config_path('dkd_resnet.py')
model = dict(losses=dict(loss_dkd=dict(beta=4.0)))
"""
READ_BASE = """
from mmengine.config import read_base

with read_base():
    from mmkd_plugin.configs.dkd_resnet import *

model.update(losses=dict(loss_dkd=dict(type='DKDLoss', on='head.fc', beta=4.0)))
"""
# a checkout may hold the environment whose packages are used: only its own rooms count
INHERIT = """
import sys
from mmengine.config import Config
for name in ('text.py', 'read_base.py'):
    config = Config.fromfile(name)
    print(config.model.type, config.model.losses.loss_dkd.beta, config.train_cfg.max_epochs)
import mmkd_plugin
files = [str(getattr(module, '__file__', '')) for module in sys.modules.values()]
checkout = tuple(f'{sys.argv[1]}/{room}/' for room in ('mmkd_plugin', 'tools', 'tests'))
print(mmkd_plugin.__file__, [file for file in files if file.startswith(checkout)])
"""
HELP = """
import contextlib, io, runpy, sys
from mmkd_plugin.command import find_tools
import mmkd_plugin

root, names = sys.argv[1], []
for name, path in find_tools().items():
    if path.suffix == '.py':
        sys.argv, sys.path[0], said = [str(path), '--help'], str(path.parent), io.StringIO()
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
            runpy.run_path(str(path), run_name='__main__')
        assert said.getvalue().startswith(f'usage: {path.name}'), (name, said.getvalue())
        names.append(name)
files = [str(getattr(module, '__file__', '')) for module in sys.modules.values()]
checkout = tuple(f'{root}/{room}/' for room in ('mmkd_plugin', 'tools', 'tests'))
print(*names, [file for file in files if file.startswith(checkout)])
"""


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp('installed')
    source = unpacked(build('sdist', copy_checkout(folder), folder), folder)
    python = make_environment(folder / 'env')
    install(build('wheel', source, folder), python)
    return python.parent


@pytest.fixture(scope='module')
def package(environment):
    (found,) = environment.parent.glob('lib/python*/site-packages/mmkd_plugin')
    return found


@pytest.fixture
def run(environment, tmp_path):
    """Runs a script or python of that environment in a project's folder, and gives what it printed."""
    (tmp_path / 'text.py').write_text(TEXT)
    (tmp_path / 'read_base.py').write_text(READ_BASE)

    def run(program, *arguments, code=0, **env):
        environ = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'PYTHONHOME')}
        done = subprocess.run(
            [environment / program, *map(str, arguments)], cwd=tmp_path, text=True, timeout=300,
            env={**environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore', **env},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == code, done.stdout[-4000:]
        return done.stdout

    return run


def test_configs_inherit(run, package):
    *inherited, loaded = run('python', '-c', INHERIT, ROOT).splitlines()
    assert inherited == ['Distilled 4.0 40'] * 2
    assert loaded == f'{package}/__init__.py []'


def test_the_doctor_finds_nothing(run, package):
    assert 'Nothing is wrong.' in run('mmkd', 'doctor')


@pytest.mark.parametrize('how', ['mmkd', 'mim'])
def test_train(run, package, tmp_path, how):
    tiny = ['--work-dir', 'out', *options(tiny_options(1, log_level='INFO'))]
    if how == 'mmkd':
        output = run('mmkd', 'train', 'mmkd_plugin::dkd_resnet.py', *tiny)
    else:  # `mim train mmkd_plugin read_base.py` calls this
        output = run('python', package / '.mim' / 'tools' / 'train.py', 'read_base.py', '--launcher', 'none', *tiny)
    assert 'teacher/accuracy/top1' in output.splitlines()[-1]
    assert (tmp_path / 'out' / 'epoch_1.pth').is_file()


def test_every_tool_answers(run):
    *names, from_checkout = run('python', '-c', HELP, ROOT).split()
    assert from_checkout == '[]'
    needed = {'chain', 'compare', 'demo', 'diagnose', 'draw', 'explain', 'find_teacher', 'list_modules', 'plot_kcd',
              'precompute', 'publish_model', 'store', 'test', 'train'}  # fmt: skip
    assert needed <= set(names)
    assert not {'bridges', 'setup_env'} & set(names)


def test_the_command_starts_at_once(run):
    output = run('mmkd', PYTHONPROFILEIMPORTTIME='1')
    imported = {line.rpartition('|')[2].strip() for line in output.splitlines() if line.startswith('import time:')}
    assert 'mmkd_plugin.command' in imported
    assert not {'torch', 'mmengine', 'numpy'} & imported
    assert '\n  train ' in output


def test_an_unknown_tool_is_told(run):
    assert "there is no tool 'trian': did you mean train?" in run('mmkd', 'trian', code=1)


def test_shell_scripts_can_be_run(package):
    for script in (package / '.mim' / 'tools').glob('*.sh'):
        assert os.access(script, os.X_OK)
    assert Path(package / '.mim' / 'tools' / 'train.py').is_file()
