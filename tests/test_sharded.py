"""FSDP on two processes of a CPU (gloo): the same training as DDP, and a plain student's checkpoint."""

import shutil

import pytest
import torch

from mmkd_plugin.files.checkpoint import read_checkpoint
from tests.end_to_end.helpers import options, tiny_options, together
from tests.end_to_end.test_checkpoints import holds_no_teacher, load_strictly

pytestmark = [
    pytest.mark.openmmlab,
    pytest.mark.skipif(torch.cuda.is_available(), reason='the processes would share a GPU, which NCCL refuses'),
]

CONFIG = """
_base_ = __import__('mmkd_plugin').config_path('dkd_resnet.py')
model = dict(losses=dict(loss_hint=dict(type='FitNetLoss', on='backbone.layer2')))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
"""
SHARDED = """
runner_type = 'FlexibleRunner'
strategy = dict(type='ShardedStrategy', model_wrapper=dict(auto_wrap_policy=dict(
    type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy', min_num_params=500)))
"""


def train(folder, config, name, *more):
    path = folder / f'{name}.py'
    path.write_text(config)
    arguments = options(tiny_options(2, log_level='INFO', **{'train_dataloader.batch_size': 5}))
    group = together(
        'tools/train.py', path, '--launcher', 'pytorch', '--no-validate', '--work-dir', folder / name, *more, *arguments
    )
    return read_checkpoint(str(folder / name / 'epoch_2.pth'))['state_dict'], group[0].stdout


@pytest.mark.slow
def test_equals_ddp_and_resumes(tmp_path):
    whole, _ = train(tmp_path, CONFIG, 'ddp')
    sharded, output = train(tmp_path, CONFIG + SHARDED, 'sharded')
    assert 'loss_hint' in output
    assert sharded.keys() == whole.keys()
    assert all(torch.equal(sharded[key], whole[key]) for key in whole)
    load_strictly({key: value for key, value in sharded.items() if not key.startswith('distill.')})
    assert holds_no_teacher(sharded)

    (tmp_path / 'resumed').mkdir()
    shutil.copy(tmp_path / 'sharded/epoch_1.pth', tmp_path / 'resumed')
    resumed, output = train(tmp_path, CONFIG + SHARDED, 'resumed', '--resume')
    assert 'resumed' in output.lower()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_a_wrapper_of_mmengines_runner_is_refused(tmp_path):
    wrapper = (
        "model_wrapper_cfg = dict(type='MMFullyShardedDataParallel', device_id=__import__('torch').device('cpu'))\n"
    )
    with pytest.raises(AssertionError, match="would write checkpoints of one process's"):
        train(tmp_path, CONFIG + wrapper, 'refused')
    assert not list((tmp_path / 'refused').glob('*.pth'))
