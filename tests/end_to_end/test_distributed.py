"""Two processes on the CPU (gloo)."""

import pytest

from mmkd_plugin.checkpoint import read_checkpoint
from tests.end_to_end.helpers import ROOT, command, options, tiny_options
from tests.end_to_end.test_checkpoints import accuracy_by_mmpretrain, accuracy_in, holds_no_teacher, load_strictly

pytestmark = [pytest.mark.openmmlab]

GRADIENTS = """
import sys, copy, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from tests.conftest import student_cfg, build, batch, trained_like, KD, DKD
from tests.test_distillation import HINT
from mmkd_plugin import distill
dist.init_process_group('gloo')
rank, world = dist.get_rank(), dist.get_world_size()
with DefaultScope.overwrite_default_scope('mmpretrain'):
    torch.manual_seed(0)
    model = distill(build(student_cfg()), {**KD, **DKD, **HINT}, teacher=trained_like(build(student_cfg(), seed=7)))
    model.double()
    # batch statistics differ between a half and the whole batch: take them out of the comparison
    model.eval()
    data = batch(8)
    data['inputs'] = data['inputs'].double()
    whole = copy.deepcopy(model)
    total, _ = whole.parse_losses(whole(**data, mode='loss'))
    total.backward()
    half = {'inputs': data['inputs'][rank::world], 'data_samples': data['data_samples'][rank::world]}
    wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    total, _ = model.parse_losses(wrapped(**half, mode='loss'))
    total.backward()
    for (name, a), b in zip(whole.named_parameters(), model.parameters()):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-9, atol=1e-12, msg=lambda m: f'{name}: {m}')
    assert model.distill.losses['loss_hint'][0].regressor.weight.grad.abs().sum() > 0
print('same gradients', flush=True)
dist.destroy_process_group()
"""


def launch(script, *args, port):
    return command('-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={port}', script, *args)


def test_averaged_gradient_is_that_of_the_joined_batch(tmp_path):
    script = tmp_path / 'gradients.py'
    script.write_text(GRADIENTS)
    assert launch(script, ROOT, port=29611).stdout.count('same gradients') == 2


def test_training_by_the_launcher_writes_a_plain_student(tmp_path):
    arguments = options(tiny_options(2, log_level='INFO', **{'train_dataloader.batch_size': 5}))
    launch('tools/train.py', 'configs/dkd_resnet.py', '--launcher', 'pytorch', '--work-dir', tmp_path, *arguments,
           port=29612)  # fmt: skip
    state = read_checkpoint(str(tmp_path / 'epoch_2.pth'))['state_dict']
    load_strictly(state)
    assert holds_no_teacher(state)
    output = launch('tools/test.py', 'configs/dkd_resnet.py', tmp_path / 'epoch_2.pth', '--launcher', 'pytorch',
                    '--work-dir', tmp_path / 't', *arguments, port=29613).stdout  # fmt: skip
    assert accuracy_in(output) == accuracy_by_mmpretrain(tmp_path, tmp_path / 'epoch_2.pth')
