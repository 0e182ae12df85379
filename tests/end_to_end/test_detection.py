"""A distilled detector through the real Runner: checkpoints, tools, resuming, two processes, EMA."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import ROOT, Forked, forked, together, train_here

pytestmark = [pytest.mark.openmmlab]

TEACHER = ROOT / 'mmkd_plugin/checkpoints/digit_scenes/faster_rcnn_teacher.pth'
# the student is as big as the teacher and starts from its weights, so that it finds something after a few steps
CONFIG = """
_base_ = __import__('mmkd_plugin').config_path('digit_scenes/faster_rcnn_teacher.py')
model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmkd_plugin::digit_scenes/faster_rcnn_teacher.py'),
    losses=dict(
        loss_dkd=dict(type='DKDLoss', on='roi_head.bbox_head.fc_cls', beta=0.25, temperature=1.0),
        loss_reviewkd=dict(type='ReviewKDLoss', on=['neck[0]', 'neck[1]', 'neck[2]', 'neck[3]']),
    ),
)
load_from = {teacher!r}
train_dataloader = dict(batch_size=4, dataset=dict(images=12))
val_dataloader = dict(dataset=dict(images=20))
test_dataloader = val_dataloader
param_scheduler = dict(eta_max=1e-4, total_steps={epochs})
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
default_hooks = dict(logger=dict(interval=1))
custom_hooks = [dict(type='EpochSeedHook'){hooks}]
"""


def config(tmp_path: Path, epochs: int = 2, hooks: str = '') -> Path:
    path = tmp_path / 'detector.py'
    path.write_text(CONFIG.format(teacher=str(TEACHER), epochs=epochs, hooks=hooks))
    return path


def train(path, work_dir, *more, **kwargs):
    return forked('tools/train.py', path, '--work-dir', work_dir, *more, **kwargs).stdout


def plain_config(tmp_path):
    cfg = Config.fromfile(config_path('digit_scenes/faster_rcnn_teacher.py'))
    cfg.test_dataloader.dataset.images = 20
    cfg.dump(str(tmp_path / 'plain.py'))
    return tmp_path / 'plain.py'


def mean_ap(output):
    return float([line for line in output.splitlines() if 'pascal_voc/mAP:' in line][-1].split('mAP:')[1].split()[0])


def mean_ap_by_mmdet(tmp_path, checkpoint):
    import mmdet

    tool = f'{mmdet.__path__[0]}/.mim/tools/test.py'
    return mean_ap(forked(tool, plain_config(tmp_path), checkpoint, '--work-dir', tmp_path / 't').stdout)


def load_strictly(state):
    cfg = Config.fromfile(config_path('digit_scenes/faster_rcnn_teacher.py'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    model.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith('distill.losses.loss_reviewkd')}, strict=True
    )
    return model


def test_checkpoint_is_the_plain_detectors(tmp_path):
    work_dir = tmp_path / 'run'
    output = train(
        config(tmp_path, hooks=", dict(type='EMAHook', momentum=0.1), dict(type='TeacherEvalHook')"), work_dir
    )
    assert 'loss_dkd' in output
    assert 'loss_reviewkd' in output
    # the teacher as a whole, folded and channels_last: the figure that mmdet's own test gives it
    line = next(line for line in output.splitlines() if 'Before training' in line)
    assert float(line.split('teacher/pascal_voc/mAP: ')[1].split(',')[0]) == pytest.approx(
        mean_ap_by_mmdet(tmp_path, TEACHER), abs=2e-3
    )
    checkpoint = read_checkpoint(str(work_dir / 'epoch_2.pth'))
    averaged = {k.removeprefix('module.'): v for k, v in checkpoint['ema_state_dict'].items() if k != 'steps'}
    for state in (checkpoint['state_dict'], averaged):
        load_strictly(state)
        assert not any('teacher' in key for key in state)
    forked('tools/publish_model.py', work_dir / 'epoch_2.pth', tmp_path / 'slim.pth')
    slim = next(tmp_path.glob('slim-*.pth'))
    assert not any('distill' in key for key in torch.load(slim, weights_only=True)['state_dict'])
    ours = mean_ap(
        forked('tools/test.py', tmp_path / 'detector.py', work_dir / 'epoch_2.pth', '--work-dir', tmp_path / 'o',
                '--cfg-options', 'model.teacher.config=nowhere.py').stdout
    )  # fmt: skip
    theirs = [mean_ap_by_mmdet(tmp_path, file) for file in (work_dir / 'epoch_2.pth', slim)]
    assert ours == theirs[0] == theirs[1] > 0.5


def test_sigkill_and_resume_equals_the_uninterrupted_run(tmp_path):
    path = config(tmp_path, epochs=4)
    train_here(path, tmp_path / 'whole')
    Forked('tools/train.py', path, '--work-dir', tmp_path / 'killed').kill_when(tmp_path / 'killed/epoch_2.pth')
    assert not (tmp_path / 'killed/epoch_4.pth').exists()
    train(path, tmp_path / 'killed', '--resume')
    a, b = (read_checkpoint(str(tmp_path / name / 'epoch_4.pth'))['state_dict'] for name in ('whole', 'killed'))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_two_processes(tmp_path):
    path = config(tmp_path, epochs=1)
    together('tools/train.py', path, '--launcher', 'pytorch', '--work-dir', tmp_path / 'run')
    load_strictly(read_checkpoint(str(tmp_path / 'run/epoch_1.pth'))['state_dict'])
    assert mean_ap_by_mmdet(tmp_path, tmp_path / 'run/epoch_1.pth') > 0.5


def test_mmdets_own_train_py(tmp_path):
    """In a user's project, with a config that inherits the entry point."""
    import mmdet

    (tmp_path / 'mine.py').write_text(
        "_base_ = __import__('mmkd_plugin').config_path('dkd_faster_rcnn.py')\n"
        'model = dict(losses=dict(loss_dkd=dict(beta=0.5)))\n'
        'train_dataloader = dict(dataset=dict(images=16))\n'
        'val_dataloader = dict(dataset=dict(images=10))\n'
        'param_scheduler = dict(total_steps=1)\n'
        'train_cfg = dict(max_epochs=1, val_interval=1)\n'
        'default_hooks = dict(logger=dict(interval=1))\n'
    )
    tool = f'{mmdet.__path__[0]}/.mim/tools/train.py'
    output = forked(tool, 'mine.py', '--work-dir', 'out', cwd=tmp_path).stdout
    assert 'loss_dkd' in output
    assert 'teacher/pascal_voc/mAP' in output
    assert (tmp_path / 'out/epoch_1.pth').exists()


def test_iteration_based_loop_and_one_class(tmp_path):
    path = config(tmp_path)
    cfg = Config.fromfile(path)
    cfg.load_from = None
    cfg.model.roi_head.bbox_head.num_classes = 1
    teacher = Config.fromfile(config_path('digit_scenes/faster_rcnn_teacher.py')).model
    teacher.roi_head.bbox_head.num_classes = 1
    cfg.model.teacher = {'model': {**teacher.to_dict(), '_scope_': 'mmdet'}, 'untrained': True}
    cfg.train_dataloader.dataset.metainfo = {'classes': ('3',)}
    cfg.val_dataloader.dataset.metainfo = cfg.test_dataloader.dataset.metainfo = {'classes': ('3',)}
    cfg.train_cfg = {'type': 'IterBasedTrainLoop', 'max_iters': 4, 'val_interval': 4}
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=4)
    cfg.dump(str(path))
    output = train(path, tmp_path / 'run')
    assert 'loss_dkd' in output
    trained = [line for line in output.splitlines() if '(train)' in line and 'loss' in line]
    assert trained
    assert not any('nan' in line for line in trained)
    assert (tmp_path / 'run/iter_4.pth').exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.usefixtures('mmcv_ops')
def test_amp_on_a_gpu(tmp_path):
    output = train(config(tmp_path), tmp_path / 'run', '--amp')
    assert mean_ap(output) > 0.5
    assert 'nan' not in output
