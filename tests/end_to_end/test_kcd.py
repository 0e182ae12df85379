"""KCD from the command line: killed and resumed, on two processes, with data workers, for a detector."""

import shutil

import pytest
import torch

from mmkd_plugin.files.checkpoint import read_checkpoint
from tests.end_to_end.helpers import Forked, forked, options, tiny_options, together, train_here
from tests.end_to_end.test_checkpoints import holds_no_teacher, load_strictly

pytestmark = [pytest.mark.openmmlab]
EPOCHS = 6
# on it a step's predictions do not depend on how a batch is split; 39 images do not divide by two processes
FROZEN = """
_base_ = __import__('mmkd_plugin').config_path('kcd_resnet.py')
train_pipeline = [dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, indices=39))
model = dict(backbone=dict(norm_eval=True))
optim_wrapper = dict(optimizer=dict(lr=0.0))
param_scheduler = dict(_delete_=True, type='ConstantLR', factor=1.0)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=9))
"""
UNCHANGED = """
_base_ = __import__('mmkd_plugin').config_path('kcd_resnet.py')
train_pipeline = [dict(type='PackInputs')]  # workers draw other augmentations
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""


CONFIG = 'configs/kcd_resnet.py'


def changes(config=CONFIG, **more):
    tiny = tiny_options(EPOCHS, **{'custom_hooks.2.interval': 2, 'log_level': 'INFO', **more})
    if 'frozen' in str(config):
        tiny.pop('param_scheduler.total_steps')
    return tiny


def arguments(work_dir, *more, config=CONFIG, **values):
    return ['tools/train.py', config, '--work-dir', work_dir, *more, *options(changes(config, **values))]


def checkpoint(work_dir, epoch=EPOCHS):
    return read_checkpoint(str(work_dir / f'epoch_{epoch}.pth'))


def test_sigkill_and_resume_equals_the_uninterrupted_run(tmp_path):
    """Killed within the second round."""
    train_here(CONFIG, tmp_path / 'whole', **changes())
    Forked(*arguments(tmp_path / 'killed')).kill_when(tmp_path / 'killed/epoch_3.pth')
    assert not (tmp_path / 'killed' / f'epoch_{EPOCHS}.pth').exists()
    forked(*arguments(tmp_path / 'killed', '--resume'))
    a, b = checkpoint(tmp_path / 'whole'), checkpoint(tmp_path / 'killed')
    assert all(torch.equal(a['state_dict'][key], b['state_dict'][key]) for key in a['state_dict'])
    assert torch.equal(a['kcd']['kept'], b['kcd']['kept'])
    torch.testing.assert_close(a['kcd']['recipes'], b['kcd']['recipes'], rtol=0, atol=0)
    assert torch.equal(a['kcd']['table']['mean'], b['kcd']['table']['mean'])
    load_strictly(b['state_dict'])
    assert holds_no_teacher(b['state_dict'])


@pytest.mark.parametrize('hook', [{}, {'value': 'kl', 'dropped_value': 'pass'}], ids=['entropy', 'kl'])
def test_two_processes_keep_what_one_keeps(tmp_path, hook):
    config = tmp_path / 'frozen.py'
    config.write_text(FROZEN)
    hook = {f'custom_hooks.2.{name}': value for name, value in hook.items()}
    forked(*arguments(tmp_path / 'one', config=config, **hook))
    together(*arguments(tmp_path / 'two', '--launcher', 'pytorch', config=config, **hook))
    # from one process to two in the middle
    (tmp_path / 'moved').mkdir()
    shutil.copy(tmp_path / 'one/epoch_3.pth', tmp_path / 'moved')
    (tmp_path / 'moved/last_checkpoint').write_text(str(tmp_path / 'moved/epoch_3.pth'))
    together(*arguments(tmp_path / 'moved', '--resume', '--launcher', 'pytorch', config=config, **hook))
    one, two, moved = (checkpoint(tmp_path / name)['kcd'] for name in ('one', 'two', 'moved'))
    assert len(one['kept']) < 39
    for other in (two, moved):
        assert torch.equal(one['kept'], other['kept'])
        torch.testing.assert_close(one['recipes'], other['recipes'], rtol=0, atol=0)
        assert torch.equal(one['table']['count'], other['table']['count'])
        torch.testing.assert_close(one['table']['mean'], other['table']['mean'], rtol=1e-4, atol=1e-6)


def test_persistent_data_workers_train_the_same(tmp_path):
    config = tmp_path / 'unchanged.py'
    config.write_text(UNCHANGED)
    train_here(config, tmp_path / 'none', **changes())
    workers = {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True}
    forked(*arguments(tmp_path / 'two', config=config, **workers))
    a, b = (checkpoint(tmp_path / name) for name in ('none', 'two'))
    assert all(torch.equal(a['state_dict'][key], b['state_dict'][key]) for key in a['state_dict'])
    torch.testing.assert_close(a['kcd']['recipes'], b['kcd']['recipes'], rtol=0, atol=0)


@pytest.mark.parametrize(
    'hook', [{}, {'value': 'kl', 'dropped_value': 'aged'}, {'value': 'loss'}], ids=['entropy', 'kl', 'loss']
)
def test_detector(tmp_path, hook):
    tiny = {
        'train_dataloader.dataset.images': 16, 'val_dataloader.dataset.images': 10, 'train_cfg.max_epochs': 3,
        'train_cfg.val_interval': 3, 'param_scheduler.total_steps': 3, 'custom_hooks.2.interval': 1,
        **{f'custom_hooks.2.{name}': value for name, value in hook.items()},
    }  # fmt: skip
    output = forked('tools/train.py', 'configs/digit_scenes/kc_dkd_faster_rcnn.py', '--work-dir', tmp_path,
                     *options(tiny)).stdout  # fmt: skip
    assert 'KCD round 2 of 2, after epoch 2: 12 of 16 kept, 1 of them mixed, 4 dropped' in output
    assert 'pascal_voc/mAP' in output
    state = checkpoint(tmp_path, 3)['kcd']
    assert state['table']['count'].sum() == 16 + 14 + 12
    assert '/JPEGImages/train_0000.jpg' in (tmp_path / 'kcd/round_2.csv').read_text()
