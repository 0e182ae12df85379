"""The commands of the README, at a tiny size."""

import importlib
import json
import os
import stat
import sys

import pytest

from mmkd_plugin.experiments import pool
from tests.end_to_end.helpers import ROOT, TINY, command, forked, options, tiny_options
from tests.processes import ForkedCommand

pytestmark = [pytest.mark.openmmlab]
DEMO = {**TINY, 'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'param_scheduler.total_steps': 1}
DEMO.pop('randomness.seed')
DEMO['log_level'] = 'INFO'


def test_main_command_as_the_readme_writes_it(tmp_path):
    output = command('tools/train.py', 'configs/dkd_resnet.py', '--work-dir', tmp_path,
                     *options(tiny_options(2, log_level='INFO'))).stdout  # fmt: skip
    assert 'Before training, on the validation data: teacher/accuracy/top1: 9' in output
    assert 'loss_dkd' in output
    assert 'teacher/accuracy/top1' in output.splitlines()[-1]


@pytest.fixture
def demo(monkeypatch, capsys, tmp_path):
    """Runs the demo with some of its rows, and gives the table."""

    def run(data, names, *arguments):
        monkeypatch.syspath_prepend(ROOT / 'tools')
        module = importlib.import_module('demo')
        monkeypatch.setattr(pool, 'Command', ForkedCommand)
        monkeypatch.setitem(module.DEMOS, data, {name: module.DEMOS[data][name] for name in names})
        monkeypatch.setattr(sys, 'argv', ['demo.py', '--data', data, '--work-dir', str(tmp_path), *arguments])
        assert module.main() == 0
        output = capsys.readouterr().out
        return output, [line.strip('| ').split(' | ') for line in output.splitlines() if line.startswith('|')][2:]

    return run


def test_demo_prints_its_table(demo, tmp_path):
    output, table = demo('digits', ['plain student', 'DKD'], '--seeds', '2', *options(DEMO))
    assert [row[0] for row in table] == ['teacher', 'plain student', 'DKD']
    assert table[0][5] == '701,178'
    assert all(row[5] == '44,550' and ' ± ' in row[1] for row in table[1:])
    assert (tmp_path / 'plain_student/seed1/epoch_1.pth').exists()
    runs = json.loads((tmp_path / 'values.json').read_text())['runs']
    assert [len(runs[name]['seeds']) for name in ('plain student', 'DKD')] == [2, 2]
    assert 'standard error' in output


def test_list_modules_shows_both_networks():
    output = forked('tools/list_modules.py', 'configs/dkd_resnet.py', '--depth', 2).stdout
    student, teacher = output.split('\nteacher: ')
    assert 'ImageClassifier on images (2, 1, 28, 28)' in student
    for side, channels in ((student, 32), (teacher, 128)):
        shapes = {line.split()[0]: line.split(maxsplit=2)[2] for line in side.splitlines()[1:] if line.strip()}
        assert shapes['backbone.layer4'] == f'(2, {channels}, 4, 4)'
        assert shapes['head.fc'] == '(2, 10)'


def test_demo_of_detection(demo, tmp_path):
    tiny = ['train_dataloader.dataset.images=8', 'val_dataloader.dataset.images=10', 'train_cfg.max_epochs=1',
            'train_cfg.val_interval=1', 'param_scheduler.total_steps=1']  # fmt: skip
    _, table = demo('digit_scenes', ['plain student', 'DKD + ReviewKD'], '--cfg-options', *tiny)
    assert [row[0] for row in table] == ['teacher', 'plain student', 'DKD + ReviewKD']
    assert float(table[0][1]) > 70
    assert (tmp_path / 'DKD_ReviewKD/seed0/epoch_1.pth').exists()


def test_list_modules_of_a_detector():
    output = forked('tools/list_modules.py', 'configs/dkd_faster_rcnn.py', '--depth', 3, '--shape', 3, 96, 96).stdout
    student, teacher = output.split('\nteacher: ')
    for side, channels in ((student, 16), (teacher, 32)):
        shapes = {line.split()[0]: line.split(maxsplit=2)[2] for line in side.splitlines()[1:] if line.startswith('  ')}
        assert shapes['neck'].startswith(f'[0] (2, {channels}, 24, 24), [1] (2, {channels}, 12, 12)')
        assert '[1][3] (2, 12, 3, 3)' in shapes['rpn_head']
        assert shapes['roi_head.bbox_head.fc_cls'] == '(8, 11)'


def test_benchmark_of_a_detector():
    output = forked('tools/benchmark_step.py', 'configs/dkd_faster_rcnn.py', '--image-size', 64, 96, '--batch-size', 2,
                     '--rounds', 1, '--warmup', 0, '--device', 'cpu', '--no-memory').stdout  # fmt: skip
    assert '64x96 px, batch 2' in output
    assert 'c / (a + b)' in output


def test_benchmark_of_the_losses():
    """Every loss has an entry, and the value of its common form; what is much of a step is explained."""
    output = forked('tools/benchmark_losses.py', '--quick', '--step-ms', 0.01).stdout
    assert 'without an entry' not in output
    rows = [line.strip('| ').split(' | ') for line in output.splitlines() if line.startswith('| ')][2:]
    assert {'KDLoss', 'DKDLoss', 'NSTLoss', 'hcl_loss'} <= {row[0] for row in rows}
    assert 'Of a step of ResNet34→18 with KD' in output
    assert '%  more than 5 %: three 3x3 convolutions' in output
    assert 'why is not known' not in output


def test_benchmark_of_some_losses():
    """All entries of a loss, or one of them."""
    output = forked('tools/benchmark_losses.py', '--quick', '--losses', 'RKDLoss', 'CCLoss: kernel').stdout
    rows = [line.strip('| ').split(' | ')[0] for line in output.splitlines() if line.startswith('| ')][2:]
    assert set(rows) == {'RKDLoss: distances', 'RKDLoss: angles', 'CCLoss: kernel'}


def test_benchmark_of_a_loss_that_is_not_there():
    done = forked('tools/benchmark_losses.py', '--quick', '--losses', 'DKDLoss', 'dkd', check=False)
    assert done.returncode != 0
    assert '--losses dkd given, expected some of ABLoss, ATLoss, ' in done.stdout


def test_benchmark_of_crd():
    sizes = '--samples', 60, '--negatives', 20, '--batch', 4, '--dim', 8, '--classes', 5
    output = forked('tools/benchmark_crd.py', *sizes, '--rounds', 1).stdout
    assert 'n = 60, K = 20, batch 4' in output
    assert 'times as fast' in output


def test_list_modules_of_a_plain_config():
    output = forked('tools/list_modules.py', 'configs/digits/resnet_teacher.py', '--depth', 3).stdout
    assert 'backbone.layer4.1' in output
    assert 'teacher:' not in output


def test_benchmark_prints_ratio_and_memory():
    output = forked('tools/benchmark_step.py', 'configs/kd_resnet.py', '--image-size', 28, '--batch-size', 4,
                     '--rounds', 2, '--warmup', 1, '--device', 'cpu').stdout  # fmt: skip
    assert 'c / (a + b)' in output
    assert '2 interleaved rounds' in output
    memory = output.splitlines()[-1]
    assert memory.startswith('peak memory')
    assert 'distilled' in memory


def test_benchmark_refuses_a_plain_config():
    done = forked('tools/benchmark_step.py', 'configs/digits/resnet_student.py', check=False)
    assert done.returncode != 0
    assert "expected type='Distilled'" in done.stdout


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_scripts_are_executable_and_parse(script):
    path = ROOT / 'tools' / script
    assert os.stat(path).st_mode & stat.S_IXUSR
    assert os.system(f'bash -n {path}') == 0


def test_missing_config_is_told():
    done = forked('tools/train.py', 'configs/none.py', check=False)
    assert done.returncode == 1
    assert "config 'configs/none.py' does not exist" in done.stdout
    assert 'Traceback' not in done.stdout
