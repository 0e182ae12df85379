"""Two processes on the CPU (gloo)."""

import pytest

from mmkd_plugin.files.checkpoint import read_checkpoint
from tests.end_to_end.helpers import ROOT, command, options, tiny_options, together
from tests.end_to_end.test_checkpoints import accuracy_by_mmpretrain, accuracy_in, holds_no_teacher, load_strictly
from tests.processes import free_port

pytestmark = [pytest.mark.openmmlab]

GRADIENTS = """
import sys, copy, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from tests.conftest import student_cfg, build, batch, trained_like, KD, DKD
from tests.distillation.test_step import HINT
from mmkd_plugin import distill
dist.init_process_group('gloo')
rank, world = dist.get_rank(), dist.get_world_size()
with DefaultScope.overwrite_default_scope('mmpretrain'):
    torch.manual_seed(0)
    losses = {**KD, **DKD, **HINT, 'loss_rkd': {'type': 'RKDLoss', 'on': 'neck', 'gather': True}}
    model = distill(build(student_cfg()), losses, teacher=trained_like(build(student_cfg(), seed=7)))
    model.double()
    # batch statistics differ between a half and the whole batch: take them out of the comparison
    model.eval()
    data = batch(8)
    data['inputs'] = data['inputs'].double()
    whole = copy.deepcopy(model)
    whole.distill.losses['loss_rkd'][0].gather = False
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
dist.barrier()
"""

GATHERED = """
import sys
sys.path.insert(0, sys.argv[1])
from mmengine.logging import MessageHub
from tests.end_to_end.helpers import tiny_options, train_here
options = tiny_options(1, **{'train_dataloader.dataset.per_class': 2, 'train_dataloader.batch_size': 5})
for gather in (True, False):
    train_here('configs/digits/rkd_resnet.py', sys.argv[2], '--launcher', 'pytorch', **options,
               **{'model.losses.loss_rkd.gather': gather})
    values, _ = MessageHub.get_current_instance().get_scalar('train/loss_rkd').data
    print('gather' if gather else 'alone', *map(float, values), flush=True)
"""


PHASES = """
import sys, copy, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from mmkd_plugin import distill
from tests.conftest import student_cfg, build, batch, KD
from tests.distillation.test_untouched import HINT, LATER, OPTIMIZERS, run, states_of, student_of
dist.init_process_group('gloo')
rank = dist.get_rank()


def wrapped(model):
    # no find_unused_parameters: its reducer wants a gradient for everything
    return MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)


def same_everywhere(model):
    for value in model.parameters():
        both = [torch.empty_like(value.data) for _ in range(2)]
        dist.all_gather(both, value.data.contiguous())
        assert torch.equal(*both)


with DefaultScope.overwrite_default_scope('mmpretrain'):
    for optimizer in OPTIMIZERS:
        for wrapper in ({}, {'clip_grad': {'max_norm': 0.5}}, {'accumulative_counts': 2}):
            model = student_of({**KD, 'loss_hint': {**HINT['loss_hint'], **LATER}})
            before = copy.deepcopy(model.distill.state_dict())
            used = run(wrapped(model), optimizer, wrapper)
            torch.testing.assert_close(model.distill.state_dict(), before, rtol=0, atol=0)
            assert not any(p in used.state for p in model.distill.parameters())
            run(wrapped(model), used, wrapper, first=6)
            assert not torch.equal(model.distill.state_dict()['losses.loss_hint.0.regressor.0.weight'],
                                   before['losses.loss_hint.0.regressor.0.weight'])
            same_everywhere(model)

            model = student_of(HINT, task_loss={'schedule': {'begin': 2}})
            before = copy.deepcopy(model.state_dict())
            used = run(wrapped(model), optimizer, wrapper)
            after = model.state_dict()
            above = ('backbone.layer3', 'backbone.layer4', 'head')
            assert all(torch.equal(after[k], before[k]) for k in after if k.startswith(above))
            assert not torch.equal(after['backbone.layer1.0.conv1.weight'], before['backbone.layer1.0.conv1.weight'])
            assert not any(p in used.state for p in model.head.parameters())
            run(wrapped(model), used, wrapper, first=4)
            assert not torch.equal(model.head.fc.weight, before['head.fc.weight'])
            same_everywhere(model)
    print('off is off', flush=True)

    late = {**KD['loss_kd'], 'schedule': {'begin': 2}}
    peer = {'type': 'Peer', 'model': build(student_cfg(), 7), 'task_loss': {'schedule': {'begin': 2}}}
    model = distill(build(student_cfg()), {'loss_kl': late, 'loss_back': {**late, 'learner': 'peer'}},
                    teachers={'peer': peer})
    before = copy.deepcopy(model.distill.state_dict())
    used = run(wrapped(model), OPTIMIZERS[0], {})
    torch.testing.assert_close(model.distill.state_dict(), before, rtol=0, atol=0)
    run(wrapped(model), used, {}, first=4)
    assert not torch.equal(model.distill.peers.peer.head.fc.weight, before['peers.peer.head.fc.weight'])
    same_everywhere(model)
    print('peers wait, and learn', flush=True)

    model = wrapped(student_of(KD))
    data = batch()
    if rank == 1:
        data['inputs'][0, 0, 0, 0] = float('nan')
    try:
        model(**data, mode='loss')
    except FloatingPointError as error:
        expected = 'a loss of another process' if rank == 0 else 'The images of this batch are not finite'
        assert expected in str(error), error
        print('both end', flush=True)
dist.barrier()
"""


def test_averaged_gradient_is_that_of_the_joined_batch(tmp_path):
    script = tmp_path / 'gradients.py'
    script.write_text(GRADIENTS)
    assert all('same gradients' in process.stdout for process in together(script, ROOT))


def test_losses_that_gather_are_logged_alike_on_all_processes(tmp_path):
    script = tmp_path / 'gathered.py'
    script.write_text(GATHERED)
    lines = [process.stdout.splitlines() for process in together(script, ROOT, tmp_path / 'run')]
    gathered, alone = ([line for own in lines for line in own if line.startswith(kind)] for kind in ('gather', 'alone'))
    assert len(gathered) == len(alone) == 2
    assert len(gathered[0].split()) == 3  # of two iterations
    assert gathered[0] == gathered[1]
    assert alone[0] != alone[1]


def test_what_is_off_is_untouched_and_a_run_ends_everywhere(tmp_path):
    script = tmp_path / 'phases.py'
    script.write_text(PHASES)
    for process in together(script, ROOT):
        assert 'off is off' in process.stdout
        assert 'peers wait, and learn' in process.stdout
        assert 'both end' in process.stdout


def test_training_by_the_launcher_writes_a_plain_student(tmp_path):
    arguments = options(tiny_options(2, log_level='INFO', **{'train_dataloader.batch_size': 5}))
    command('-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={free_port()}', 'tools/train.py',
            'configs/dkd_resnet.py', '--launcher', 'pytorch', '--work-dir', tmp_path, *arguments)  # fmt: skip
    state = read_checkpoint(str(tmp_path / 'epoch_2.pth'))['state_dict']
    load_strictly(state)
    assert holds_no_teacher(state)
    first, _ = together('tools/test.py', 'configs/dkd_resnet.py', tmp_path / 'epoch_2.pth', '--launcher', 'pytorch',
                        '--work-dir', tmp_path / 't', *arguments)  # fmt: skip
    assert accuracy_in(first.stdout) == accuracy_by_mmpretrain(tmp_path, tmp_path / 'epoch_2.pth')
