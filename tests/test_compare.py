"""`tools/compare.py` on tiny runs of a few digits: what it makes, and what it does when it is called again."""

import csv
import fcntl
import importlib
import json
import os
import re
import subprocess
import sys
import time

import pytest
from mmengine.config import Config

from mmkd_plugin.experiments import pool
from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import ROOT, tiny_options
from tests.processes import ForkedCommand, environment

pytestmark = [pytest.mark.openmmlab]
TINY = tiny_options(1, **{'log_level': 'INFO', 'default_hooks.logger.interval': 2})
PLAIN, KD = config_path('digits/resnet_student.py'), config_path('kd_resnet.py')
ITERATIONS = """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=4, val_interval=4)
param_scheduler = dict(_delete_=True, type='ConstantLR', factor=1.0, by_epoch=False)
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type='TeacherEvalHook')]
model = dict(losses=dict(loss_kd=None, loss_fit=dict(type='FitNetLoss', on='backbone.layer4')))
"""
BROKEN = "model = dict(losses=dict(loss_kd=dict(on='nowhere')))"


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    """Paths by name, of configs that a user might have."""
    folder = tmp_path_factory.mktemp('configs')
    tiny = Config()
    tiny.merge_from_dict(TINY)
    settings = '\n'.join(f'{key} = {value!r}' for key, value in tiny.to_dict().items())
    written = {}
    for name, base, more in (
        ('plain', PLAIN, settings),
        ('kd', KD, settings),
        ('iterations', 'kd.py', ITERATIONS),
        ('broken', 'kd.py', BROKEN),
        ('long', PLAIN, re.sub("('max_epochs'|'total_steps'): 1", r'\1: 60', settings)),
    ):
        path = folder / f'{name}.py'
        path.write_text(f'_base_ = {base!r}\n{more}\n')
        written[name] = str(path)
    return written


@pytest.fixture
def compare(monkeypatch, capsys):
    """Runs the tool with forks, and gives its exit code, what it said, and the names and seeds that were begun."""
    monkeypatch.syspath_prepend(ROOT / 'tools')
    monkeypatch.setattr(pool, 'Command', ForkedCommand)
    monkeypatch.setattr(ForkedCommand, 'started', [])

    def run(*arguments):
        ForkedCommand.started.clear()
        code = importlib.import_module('compare').main([str(argument) for argument in arguments])
        folders = [command[command.index('--work-dir') + 1].split('/')[-2:] for command in ForkedCommand.started]
        return code, capsys.readouterr().out, [f'{name} {seed[-1]}' for name, seed in folders]

    return run


def test_a_comparison_and_what_is_left_of_it(compare, configs, tmp_path):
    given = [configs['kd'], configs['iterations'], configs['broken'], '--plain', configs['plain'], '--seeds', 2]
    given += ['--jobs', 2, '--work-dir', tmp_path, '--name', f'{configs["iterations"]}=FitNet 4']

    def go(*more):
        return compare(*given, *more)

    code, said, begun = go()
    assert code == 1
    assert begun == [f'{name} {seed}' for seed in '01' for name in ('plain', 'kd', 'FitNet_4', 'broken')]
    assert re.search("broken cannot be built here: .*'nowhere'", said)
    assert 'broken, seed 0: FAILED' in said
    assert 'seed 0 is complete' in said
    with (tmp_path / 'table.csv').open() as file:
        rows = {row['model']: row for row in csv.DictReader(file)}
    assert list(rows) == ['teacher', 'plain', 'kd', 'FitNet 4', 'broken']
    assert all(rows[name]['seeds'] == '2' and rows[name]['gain_standard_error'] for name in ('kd', 'FitNet 4'))
    assert rows['broken']['failed'] == '2'
    assert float(rows['teacher']['mean']) > 95
    assert [rows[name]['trained_beside'] for name in ('plain', 'kd', 'FitNet 4')] == ['0', '0', str(32 * 128 + 2 * 128)]
    assert all(float(rows[name]['step_time_relative']) > 0 for name in ('kd', 'FitNet 4'))
    table = (tmp_path / 'table.md').read_text()
    assert '0 of 2, failed 2 of 2' in table
    assert str(tmp_path / 'broken/seed1/train.log') in table
    assert table in said
    assert (tmp_path / 'gains.png').read_bytes().startswith(b'\x89PNG')
    assert json.loads((tmp_path / 'values.json').read_text())['metric'] == 'accuracy/top1'

    # nothing is trained twice, and what failed is tried again; tables can be had without
    assert go()[2] == ['broken 0', 'broken 1']
    (tmp_path / 'table.md').unlink()
    code, said, begun = go('--table-only')
    assert (code, begun) == (0, [])
    assert (tmp_path / 'table.md').read_text() == table
    assert table in said

    with pytest.raises(
        SystemExit, match=r"plain/seed0' was trained with another config or other options: x: none there"
    ):
        go('--cfg-options', 'x=1')
    with pytest.raises(SystemExit, match='holds another comparison, with runs of FitNet_4, broken'):
        compare(configs['kd'], '--plain', configs['plain'], '--work-dir', tmp_path)
    with pytest.raises(SystemExit, match=r"'nothing' was not logged, only accuracy/top1"):
        go('--table-only', '--metric', 'nothing')


def free(folder):
    """Whether no process is training there."""
    with (folder / '.running').open('a') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_killed_comparison_goes_on(compare, configs, tmp_path):
    """Killed, it takes its run with it; called again, the run goes on from its last checkpoint."""
    given = [configs['long'], '--plain', configs['long'], '--seeds', '1', '--work-dir', str(tmp_path)]
    run = tmp_path / 'long/seed0'
    with subprocess.Popen([sys.executable, 'tools/compare.py', *given], cwd=ROOT, env=environment()) as tool:
        deadline = time.monotonic() + 200
        while not (run / 'epoch_2.pth').exists():
            assert tool.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(SystemExit, match='another run is using the work folder'):
            compare(*given)
        tool.kill()
    while not free(run):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (run / 'epoch_60.pth').exists()
    code, said, begun = compare(*given)
    assert (code, begun) == (0, ['long 0'])
    assert 'long, seed 0: goes on from epoch_' in said
    assert 'resumed epoch: ' in (run / 'train.log').read_text().lower()
    assert json.loads((run / 'run.json').read_text())['result']['seconds'] is None


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['none.py', '--plain', PLAIN], "config 'none.py' does not exist"),
        ([PLAIN, '--plain', 'none.py'], "config 'none.py' does not exist"),
        ([KD], 'the following arguments are required: --plain'),
        ([KD, '--plain', PLAIN, '--seeds', '0'], '--seeds 0 given, expected at least 1'),
        ([KD, '--plain', PLAIN, '--jobs', '0'], '--jobs 0 given, expected at least 1'),
        ([KD, '--plain', PLAIN, '--name', KD], f'--name {KD} given, expected CONFIG=NAME'),
        ([KD, '--plain', PLAIN, '--cfg-options', 'x'], '--cfg-options x given, expected KEY=VALUE'),
    ],
)
def test_slips(compare, capsys, arguments, said):
    with pytest.raises(SystemExit):
        compare(*arguments)
    assert said in capsys.readouterr().err


def test_two_configs_of_one_name(compare, tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'x.py').write_text('')
    one, two = (tmp_path / folder / 'x.py' for folder in ('a', 'b'))
    with pytest.raises(SystemExit, match="would both be called 'x': name one, as in --name"):
        compare(one, '--plain', two, '--work-dir', tmp_path / 'work')
    assert not os.path.exists(tmp_path / 'work')
