"""What the command line makes of a config; the runs themselves are in end_to_end/."""

import time

import pytest
import torch

from mmkd_plugin import launch
from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import parse
from tests.processes import Forked

CONFIG = config_path('dkd_resnet.py')


@pytest.fixture
def configs(monkeypatch):
    """The configs that would have been run."""
    seen: list = []
    monkeypatch.setattr(launch, '_run', lambda config, what: seen.append((what, config)))
    return seen


def train(configs, *argv):
    launch.run_train(parse('train.py', CONFIG, *argv))
    what, config = configs.pop()
    assert what == 'train'
    return config


def test_defaults(configs):
    config = train(configs)
    assert config.work_dir == 'work_dirs/dkd_resnet'
    assert config.launcher == 'none'
    assert not config.resume
    assert config.train_dataloader.collate_fn.type == 'default_collate'


def test_usual_arguments(configs):
    config = train(configs, '--work-dir', 'x', '--resume', '--cfg-options', 'train_cfg.max_epochs=2', 'a.b=[1,2]')
    assert (config.work_dir, config.resume, config.load_from) == ('x', True, None)
    assert (config.train_cfg.max_epochs, config.a.b) == (2, [1, 2])
    assert train(configs, '--resume', 'http://a/c.pth').load_from == 'http://a/c.pth'


def test_resuming_when_the_pointer_was_lost(configs, tmp_path):
    import os

    for name in ('epoch_2.pth', 'epoch_10.pth', 'epoch_11.pth', 'best_accuracy.pth'):
        torch.save({}, tmp_path / name)
    os.truncate(tmp_path / 'epoch_11.pth', 100)
    pointer = tmp_path / 'last_checkpoint'

    def resumed():
        return train(configs, '--work-dir', str(tmp_path), '--resume').load_from

    assert resumed() == str(tmp_path / 'epoch_10.pth')
    for lost in ('', str(tmp_path / 'epoch_9.pth')):
        pointer.write_text(lost)
        assert resumed() == str(tmp_path / 'epoch_10.pth')
    pointer.write_text(str(tmp_path / 'epoch_2.pth'))
    assert resumed() is None, 'a pointer that is fine is left to mmengine'


def test_without_validation_the_teacher_is_not_evaluated(configs):
    config = train(configs, '--no-validate')
    assert config.val_cfg is config.val_dataloader is config.val_evaluator is None
    assert [hook.type for hook in config.custom_hooks] == ['EpochSeedHook', 'DistillHook']


def test_scaling_the_learning_rate_needs_its_base(configs):
    with pytest.raises(SystemExit, match=r'base_batch_size'):
        train(configs, '--auto-scale-lr')
    config = train(configs, '--auto-scale-lr', '--cfg-options', 'auto_scale_lr.base_batch_size=64')
    assert config.auto_scale_lr.enable


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_amp_needs_a_gpu(configs):
    with pytest.raises(SystemExit, match='needs a GPU'):
        train(configs, '--amp')


def test_amp(configs, monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    assert train(configs, '--amp').optim_wrapper.type == 'AmpOptimWrapper'
    for kind in ('BoundedOptimWrapper', 'AmpBoundedOptimWrapper'):
        config = train(configs, '--amp', '--cfg-options', f'optim_wrapper.type={kind}')
        assert config.optim_wrapper.type == 'AmpBoundedOptimWrapper'


def test_testing_takes_the_plain_student(configs):
    launch.run_test(parse('test.py', CONFIG, 'some.pth', '--out', 'results.pkl'))
    what, config = configs.pop()
    assert what == 'test'
    assert config.model.type == 'ImageClassifier'
    assert not {'teacher', 'losses', 'student'} & set(config.model)
    assert config.load_from == 'some.pth'
    assert config.test_evaluator[-1].type == 'DumpResults'


def test_missing_config():
    with pytest.raises(SystemExit, match='does not exist'):
        parse('train.py', 'none.py')


def test_distilled_runs_get_their_hook(configs):
    def hooks(*argv):
        return [hook['type'] for hook in train(configs, *argv).custom_hooks]

    assert hooks() == ['EpochSeedHook', 'TeacherEvalHook'], 'which does the same'
    assert hooks('--no-validate') == ['EpochSeedHook', 'DistillHook']
    assert hooks('--cfg-options', 'custom_hooks.1.type=DistillHook') == ['EpochSeedHook', 'DistillHook']
    launch.run_train(parse('train.py', config_path('digits/resnet_student.py')))
    assert 'DistillHook' not in str(configs.pop()[1].get('custom_hooks'))


def test_a_file_to_resume_from_is_looked_at(configs, tmp_path):
    (tmp_path / 'cut.pth').write_bytes(b'PK\x03\x04 truncated')
    for path, said in (
        ('cut.pth', 'is incomplete'),
        ('none.pth', 'does not exist.*takes the latest'),
        ('', 'a folder'),
    ):
        with pytest.raises(SystemExit, match=f'--resume: .*{said}'):
            train(configs, '--resume', str(tmp_path / path))


def test_a_slip_of_syntax_names_the_config(tmp_path):
    (tmp_path / 'slip.py').write_text('model = dict(type=\n')
    with pytest.raises(SystemExit, match=r"slip\.py', or one that it inherits, is no Python: .*never closed"):
        launch.run_train(parse('train.py', tmp_path / 'slip.py'))


def test_a_launcher_needs_its_environment(monkeypatch, tmp_path):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(SystemExit, match=r'given, and WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not .*dist_train\.sh'):
        launch.run_train(parse('train.py', CONFIG, '--launcher', 'pytorch', '--work-dir', tmp_path))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit, match=r'nothing can be written into .*file.*give another folder'):
        launch.occupy(tmp_path / 'file')


def test_what_a_killed_writer_left_is_removed(tmp_path):
    kept = {'.epoch_1.pth', '.notes.txt', 'epoch_1.pth', '.x.pth.backup-of-mine', '.running'}
    for name in (*kept, '.epoch_2.pth.a1_b2c3d', '.kcd.csv.abcdefgh'):
        (tmp_path / name).touch()
    with launch.occupy(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == kept


OCCUPY = """
import sys
import time
from mmkd_plugin.launch import occupy
with occupy(sys.argv[1]):
    time.sleep(300)
"""


def test_a_second_run_in_a_work_folder_is_told(tmp_path):
    """And a third after the first was killed is not."""
    folder, script = tmp_path / 'new' / 'run', tmp_path / 'occupy.py'
    script.write_text(OCCUPY)
    first = Forked(script, folder)
    try:
        while not (folder / '.running').exists() or not (folder / '.running').read_text().endswith('\n'):
            assert first.returncode is None, first.wait().stdout
            time.sleep(0.01)
        with pytest.raises(SystemExit, match=rf'another run is using the work folder .* \(process {first.pid} on'):
            launch.occupy(folder)
        with launch.occupy(tmp_path / 'other'):
            pass
    finally:
        first.kill()
    with launch.occupy(folder):
        pass


def test_only_the_first_process_of_a_run_locks(tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    with launch.occupy(tmp_path / 'run'):
        assert not (tmp_path / 'run').exists()
