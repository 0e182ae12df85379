"""Class-incremental Faster R-CNN through the real Runner. The older detector is five classes of the shipped one."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmkd_plugin.files.atomic import save_checkpoint
from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import forked, runner_of, train_here
from tests.end_to_end.test_detection import TEACHER, mean_ap
from tests.killing import keep_start, kill, resumed

pytestmark = [pytest.mark.openmmlab]

HEAD = 'roi_head.bbox_head.'
SCORES, BOXES = [0, 1, 2, 3, 4, 10], list(range(20))
OLD_CONFIG = """
_base_ = __import__('mmkd_plugin').config_path('digit_scenes/faster_rcnn_teacher.py')
model = dict(roi_head=dict(bbox_head=dict(num_classes=5)))
"""
CONFIG = """
_base_ = __import__('mmkd_plugin').config_path('digit_scenes/faster_rcnn_teacher.py')
model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config={folder!r} + '/old.py', checkpoint={folder!r} + '/old.pth'),
    start=dict(teacher='teacher', alone=1),
    losses=dict(loss_ilod=dict(type='ILODLoss', on=['roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg'])),
)
train_dataloader = dict(batch_size=4, dataset=dict(images=8, classes=[5, 6, 7, 8, 9]))
val_dataloader = dict(dataset=dict(images=20))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='OldNewVOCMetric', old=5, eval_mode='area')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = dict(eta_max=1e-4, total_steps=2)
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=-1))
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """With the older detector and the config of its successor."""
    folder = tmp_path_factory.mktemp('lifelong')
    state = read_checkpoint(str(TEACHER))['state_dict']
    for key in ('weight', 'bias'):
        state[f'{HEAD}fc_cls.{key}'] = state[f'{HEAD}fc_cls.{key}'][SCORES].clone()
        state[f'{HEAD}fc_reg.{key}'] = state[f'{HEAD}fc_reg.{key}'][BOXES].clone()
    meta = {'dataset_meta': {'classes': list('01234')}}
    save_checkpoint({'state_dict': state, 'meta': meta}, folder / 'old.pth')
    (folder / 'old.py').write_text(OLD_CONFIG)
    (folder / 'new.py').write_text(CONFIG.format(folder=str(folder)))
    return folder


def config(folder: Path, work_dir: Path) -> Config:
    cfg = Config.fromfile(str(folder / 'new.py'))
    cfg.work_dir, cfg.launcher, cfg.log_level = str(work_dir), 'none', 'WARNING'
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}]
    return cfg


def test_it_begins_as_the_older_detector_and_goes_on_after_it_was_killed(folder, tmp_path):
    with DefaultScope.overwrite_default_scope('mmdet'):
        runner = runner_of(config(folder, tmp_path / 'whole'))
        start = keep_start(runner)
        whole = runner.train().state_dict()
        kill(config(folder, tmp_path / 'killed'), 3)
        torch.testing.assert_close(resumed(config(folder, tmp_path / 'killed')).state_dict(), whole, rtol=0, atol=0)
    old = read_checkpoint(str(folder / 'old.pth'))['state_dict']
    alone = read_checkpoint(str(tmp_path / 'whole/epoch_1.pth'))['state_dict']
    grown = {f'{HEAD}{layer}.{key}' for layer in ('fc_cls', 'fc_reg') for key in ('weight', 'bias')}
    for name, value in old.items():
        if name in grown:
            rows = SCORES if 'fc_cls' in name else BOXES
            new = [row for row in range(len(start[name])) if row not in rows]
            for state in (start, alone):
                assert torch.equal(state[name][rows], value)
            assert (alone[name][new] != start[name][new]).any()
            assert (whole[name][rows] != value).any()
        else:
            assert torch.equal(start[name], value), name
            assert torch.equal(alone[name], value), name
    changed = [name for name in whole if not torch.equal(whole[name], alone[name])]
    assert {name.split('.')[0] for name in changed} == {'backbone', 'neck', 'rpn_head', 'roi_head'}


def test_the_result_is_a_plain_detector_of_all_classes(folder, tmp_path):
    import mmdet

    train_here(folder / 'new.py', tmp_path / 'run')
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    (alone,) = (line for line in log.splitlines() if 'new rows alone from epoch 0, iteration 0: trains ' in line)
    assert f'trains {HEAD}fc_cls, {HEAD}fc_reg (4 of ' in alone
    assert 'teacher knows the first 5 of 10 classes' in log
    values = log.split('Before training, on the validation data: ')[1].splitlines()[0].split(', ')
    before = {name: float(value) for name, value in (one.split(': ') for one in values)}
    assert before['teacher/pascal_voc/mAP_old'] > 0.6
    assert before['teacher/pascal_voc/mAP_new'] == 0
    line = [line for line in log.splitlines() if 'Epoch(val)' in line][-1]
    assert float(line.split('pascal_voc/mAP_old: ')[1].split()[0]) > 0.3
    state = read_checkpoint(str(tmp_path / 'run/epoch_2.pth'))['state_dict']
    plain = Config.fromfile(config_path('digit_scenes/faster_rcnn_teacher.py'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        MODELS.build(plain.model).load_state_dict(state, strict=True)
    plain.test_dataloader.dataset.images = 20
    plain.dump(str(tmp_path / 'plain.py'))
    tool = f'{mmdet.__path__[0]}/.mim/tools/test.py'
    output = forked(tool, tmp_path / 'plain.py', tmp_path / 'run/epoch_2.pth', '--work-dir', tmp_path / 't').stdout
    assert mean_ap(output) == float(line.split(' pascal_voc/mAP: ')[1].split()[0])
    assert mean_ap(output) > 0.1
