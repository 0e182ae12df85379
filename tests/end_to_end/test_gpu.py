"""What no CPU can show: mixed precision through the Runner, and processes that talk through NCCL."""

import json
import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import options, together, train_here
from tests.end_to_end.test_checkpoints import load_strictly

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.openmmlab,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'),
]

EPOCH = {
    'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'param_scheduler.total_steps': 1, 'log_level': 'WARNING',
    'default_hooks.logger.interval': 1, 'randomness.seed': 3,
}  # fmt: skip
FP16 = {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.loss_scale': 'dynamic'}
BF16 = {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.dtype': 'bfloat16', 'optim_wrapper.loss_scale': 1.0}


def logged(work_dir: Path) -> list[dict[str, float]]:
    """What was logged of each training step."""
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if 'loss' in line]


def plain(checkpoint: dict) -> dict:
    """Its weights, without parts of losses."""
    return {key: value for key, value in checkpoint['state_dict'].items() if not key.startswith('distill.')}


def check_run(work_dir: Path, loss: str, steps: int) -> dict:
    """Losses are there and finite in each step.

    Returns:
        The checkpoint.
    """
    lines = logged(work_dir)
    assert len(lines) == steps, lines
    assert all(loss in line for line in lines)
    assert all(math.isfinite(value) for line in lines for key, value in line.items() if 'loss' in key)
    return read_checkpoint(str(work_dir / 'epoch_1.pth'))


@pytest.mark.parametrize('precision', [FP16, BF16], ids=['fp16', 'bf16'])
@pytest.mark.parametrize(
    ('config', 'loss'),
    [('kd_resnet.py', 'loss_kd'), ('dkd_resnet.py', 'loss_dkd'), ('digits/crd_resnet.py', 'loss_crd')],
)
def test_mixed_precision_of_a_classifier(tmp_path, config, loss, precision):
    train_here(f'configs/{config}', tmp_path, **EPOCH, **precision)
    checkpoint = check_run(tmp_path, loss, 13)  # 200 images, 16 at once
    # it begins at 2**16 and is halved where gradients overflow: a few times at the start is normal
    assert checkpoint['optimizer']['loss_scaler']['scale'] >= (2**12 if precision is FP16 else 1)
    load_strictly(plain(checkpoint))


@pytest.mark.usefixtures('mmcv_ops')
@pytest.mark.parametrize('precision', [FP16, BF16], ids=['fp16', 'bf16'])
def test_mixed_precision_of_a_detector(tmp_path, precision):
    small = {'train_dataloader.dataset.images': 32, 'val_dataloader.dataset.images': 8}
    train_here('configs/dkd_faster_rcnn.py', tmp_path, **{**EPOCH, **small, **precision})
    checkpoint = check_run(tmp_path, 'loss_dkd', 4)
    assert checkpoint['optimizer']['loss_scaler']['scale'] >= (2**12 if precision is FP16 else 1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(Config.fromfile(config_path('digit_scenes/faster_rcnn_student.py')).model)
    detector.load_state_dict(plain(checkpoint), strict=True)


def test_sharded_parameters(tmp_path):
    """FSDP on all GPUs that there are; on one it shards nothing, and goes the same way."""
    path, work_dir = tmp_path / 'sharded.py', tmp_path / 'run'
    path.write_text(
        "_base_ = __import__('mmkd_plugin').config_path('dkd_resnet.py')\n"
        "runner_type = 'FlexibleRunner'\nstrategy = dict(type='ShardedStrategy')\n"
    )
    count = torch.cuda.device_count()
    together('tools/train.py', path, '--work-dir', work_dir, '--launcher', 'pytorch', *options(EPOCH), processes=count)
    load_strictly(plain(check_run(work_dir, 'loss_dkd', -(-13 // count))))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
def test_two_gpus_through_nccl(tmp_path):
    values = options({**EPOCH, **FP16})
    together('tools/train.py', 'configs/dkd_resnet.py', '--work-dir', tmp_path, '--launcher', 'pytorch', *values)
    checkpoint = check_run(tmp_path, 'loss_dkd', 7)  # each process has 100 images
    load_strictly(plain(checkpoint))
