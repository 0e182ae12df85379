"""A user's own project inherits our configs, with the train.py that mmpretrain and mmdet carry."""

import importlib
import json
from pathlib import Path

import pytest

from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import ROOT, command, options, tiny_options

pytestmark = [pytest.mark.openmmlab]

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


@pytest.fixture(scope='session')
def wheel_site(tmp_path_factory):
    """This package as a wheel brings it, in a folder of its own."""
    folder = tmp_path_factory.mktemp('wheel')
    command('-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', folder, ROOT)
    site = folder / 'site'
    command('-m', 'pip', 'install', '-q', '--no-deps', '--target', site, next(folder.glob('*.whl')))
    assert not (site / 'mmkd_plugin/.mim/configs').is_symlink()
    return site


@pytest.mark.parametrize(
    ('package', 'style', 'install'),
    [
        ('mmpretrain', 'text', 'editable'),
        ('mmpretrain', 'read_base', 'editable'),
        ('mmdet', 'text', 'editable'),
        ('mmpretrain', 'text', 'wheel'),
        ('mmdet', 'read_base', 'wheel'),
    ],
)
def test_train(tmp_path, request, package, style, install):
    # the environment of `make test` has this checkout installed as editable, and nothing on PYTHONPATH
    site, path = (ROOT, '') if install == 'editable' else [request.getfixturevalue('wheel_site')] * 2
    tool = Path(importlib.import_module(package).__path__[0]) / '.mim/tools/train.py'
    project = tmp_path / 'project'
    project.mkdir()
    (project / 'my_config.py').write_text(TEXT if style == 'text' else READ_BASE)
    tiny = options(tiny_options(1, log_level='INFO'))
    done = command('-W', 'ignore', tool, 'my_config.py', '--work-dir', 'out', *tiny, cwd=project, PYTHONPATH=str(path))
    assert f'{site}' in command('-c', 'import mmkd_plugin; print(mmkd_plugin.__file__)', cwd=project,
                                PYTHONPATH=str(path)).stdout  # fmt: skip
    log = [json.loads(line) for line in next(project.glob('out/*/vis_data/scalars.json')).read_text().splitlines()]
    assert any('loss_dkd' in line for line in log)
    assert 'teacher/accuracy/top1' in log[-1], done.stdout[-2000:]
    assert 'beta=4' in (project / 'out').glob('*/vis_data/config.py').__next__().read_text().replace(
        'beta=4.0', 'beta=4'
    )


@pytest.mark.parametrize(
    'name',
    ['dkd_resnet.py', 'classification/kcd/kc_kd_wrn-40-2_wrn-16-2_cifar100.py', 'digit_scenes/at_faster_rcnn.py'],
)
def test_a_bridge_is_the_config(tmp_path, monkeypatch, name):
    """Through mmengine's own parser, wherever the package is installed."""
    from mmengine.config import Config, config

    installed = config.get_installed_path
    monkeypatch.setattr(
        config, 'get_installed_path', lambda name: str(ROOT / name) if name == 'mmkd_plugin' else installed(name)
    )
    module = name.removesuffix('.py').replace('/', '.').replace('-', '_')
    mine = tmp_path / 'mine.py'
    mine.write_text(
        f'from mmengine.config import read_base\n\nwith read_base():\n    from mmkd_plugin.configs.{module} import *\n'
    )
    assert Config.fromfile(mine).to_dict() == Config.fromfile(config_path(name)).to_dict()
