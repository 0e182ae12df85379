"""Lifelong learning through the real Runner: an old network and its successor, killed runs, EMA, two processes."""

import copy

import pytest
import torch

from mmkd_plugin.files.checkpoint import read_checkpoint
from tests.end_to_end.helpers import ROOT, digits_cfg, options, runner_of, tiny_options, together
from tests.end_to_end.test_checkpoints import accuracy_by_mmpretrain, load_strictly
from tests.killing import keep_start, kill, resumed

pytestmark = [pytest.mark.openmmlab]

EPOCHS, OLD = 4, 5
HEAD = {'head.fc.weight', 'head.fc.bias'}
FIRST_HALF = list(range(0, 500, 10))


@pytest.fixture(scope='module')
def older(tmp_path_factory):
    """A checkpoint of the digits 0 to 4."""
    folder = tmp_path_factory.mktemp('old')
    halves = {f'{loader}.dataset.indices': FIRST_HALF for loader in ('val_dataloader', 'test_dataloader')}
    runner_of(digits_cfg(folder, 2, 'digits/lwf_old_resnet.py', **halves)).train()
    return folder / 'epoch_2.pth'


def config(folder, older, epochs=EPOCHS, **more):
    """Two epochs of the new rows alone, two of all."""
    cfg = digits_cfg(folder, epochs, 'digits/lwf_resnet.py',
                     **{'model.teacher.checkpoint': str(older), 'model.start.alone': 2, **more})  # fmt: skip
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    return cfg


def same(one, other, but=()):
    return [name for name in one if name not in but and not torch.equal(one[name], other[name])] == []


def test_a_run_by_its_phases(older, tmp_path):
    cfg = config(tmp_path / 'run', older, log_level='INFO')
    runner = runner_of(cfg)
    start = keep_start(runner)
    runner.train()
    before, states = (
        read_checkpoint(str(older)),
        [read_checkpoint(str(tmp_path / f'run/epoch_{n}.pth')) for n in (2, 4)],
    )
    assert before['meta']['dataset_meta']['classes'] == tuple('01234')
    old, alone, end = before['state_dict'], states[0]['state_dict'], states[1]['state_dict']
    assert same(old, start, but=HEAD)
    assert same(start, alone, but=HEAD)
    for name in HEAD:
        assert torch.equal(alone[name][:OLD], old[name])
        assert (alone[name][OLD:] != start[name][OLD:]).any()
        assert (end[name][:OLD] != old[name]).any()
    # of 62 parameters, two have states; those of the old rows are zero
    momentum = [one['momentum_buffer'] for one in states[0]['optimizer']['state'].values()]
    assert len(momentum) == 2
    assert not any(buffer[:OLD].any() for buffer in momentum)
    assert [name for name in end if torch.equal(end[name], alone[name])] == []

    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    alone_line, all_line = (line for line in log.splitlines() if ' phase of ' in line)
    assert 'task + loss_lwf + new rows alone from epoch 0, iteration 0: trains head (2 of 62' in alone_line
    assert 'task + loss_lwf from epoch 2, iteration 4: trains backbone, head (62 of 62' in all_line
    assert 'the student starts from teacher, with new rows in head.fc.weight (5 old rows)' in log
    assert 'teacher knows the first 5 of 10 classes of the validation data' in log
    metrics = runner.val_loop.run()
    assert {f'accuracy/{name}' for name in ('top1', 'old', 'new', 'old_within', 'new_within')} <= metrics.keys()

    model = load_strictly(end)
    assert model.head.fc.out_features == 10
    assert accuracy_by_mmpretrain(tmp_path, tmp_path / 'run/epoch_4.pth') == pytest.approx(
        metrics['accuracy/top1'], abs=0.01
    )


@pytest.mark.parametrize('optimizer', [None, {'type': 'AdamW', 'lr': 0.01, 'weight_decay': 0.1}], ids=['sgd', 'adamw'])
def test_a_killed_run_goes_on_bit_for_bit_in_and_between_the_phases(older, tmp_path, optimizer):
    def own(name):
        cfg = config(tmp_path / name, older)
        cfg.optim_wrapper.clip_grad = {'max_norm': 1.0}
        if optimizer:
            cfg.optim_wrapper.optimizer = dict(optimizer)
        return cfg

    whole = runner_of(own('whole')).train().state_dict()
    for iteration in (3, 5, 7):  # of two in each epoch
        kill(own(f'killed{iteration}'), iteration)
        torch.testing.assert_close(resumed(own(f'killed{iteration}')).state_dict(), whole, rtol=0, atol=0)


def test_ema_of_it_is_a_plain_network_too(older, tmp_path):
    cfg = config(tmp_path, older)
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'EMAHook', 'momentum': 0.5}]
    runner_of(cfg).train()
    start = read_checkpoint(str(older))['state_dict']
    states = [read_checkpoint(str(tmp_path / f'epoch_{number}.pth')) for number in (2, 4)]
    # mmengine swaps them when it saves: `state_dict` is the average
    for key in ('state_dict', 'ema_state_dict'):
        averaged = {name.removeprefix('module.'): value for name, value in states[0][key].items() if name != 'steps'}
        assert same(start, averaged, but=HEAD)
        assert all(torch.equal(averaged[name][:OLD], start[name]) for name in HEAD)
    load_strictly(states[1]['state_dict'])


def test_fine_tuning_and_joint_training(older, tmp_path):
    """The same start; with joint training every digit is seen."""
    for name in ('finetune', 'joint'):
        cfg = digits_cfg(tmp_path / name, 2, f'digits/lwf_{name}_resnet.py',
                         **{'model.teacher.checkpoint': str(older), 'model.start.alone': 1})  # fmt: skip
        runner = runner_of(cfg)
        start = keep_start(runner)
        runner.train()
        assert same(read_checkpoint(str(older))['state_dict'], start, but=HEAD)
        labels = {entry['gt_label'] for entry in runner.train_dataloader.dataset.data_list}
        assert labels == set(range(5 if name == 'finetune' else 0, 10))


def test_steps_in_a_row(older, tmp_path):
    """The third step's teacher knows what the first two have learned."""
    indices = {f'{loader}.dataset.indices': list(range(0, 700, 10)) for loader in ('val_dataloader', 'test_dataloader')}
    two = digits_cfg(tmp_path / 'two', 2, 'digits/lwf_step2_resnet.py',
                     **{'model.teacher.checkpoint': str(older), 'model.start.alone': 1, **indices})  # fmt: skip
    runner_of(two).train()
    three = digits_cfg(tmp_path / 'three', 2, 'digits/lwf_step3_resnet.py',
                       **{'model.teacher.checkpoint': str(tmp_path / 'two/epoch_2.pth'),
                          'model.start.alone': 1})  # fmt: skip
    runner = runner_of(three)
    start = keep_start(runner)
    model = runner.train()
    assert start['head.fc.weight'].shape[0] == 10
    before = read_checkpoint(str(tmp_path / 'two/epoch_2.pth'))['state_dict']['head.fc.weight']
    assert before.shape[0] == 7
    assert torch.equal(start['head.fc.weight'][:7], before)
    load_strictly({k: v for k, v in model.state_dict().items() if not k.startswith('distill.')})


def test_an_old_network_whose_classes_the_data_lack_stops_before_training(older, tmp_path):
    cfg = config(tmp_path, older)
    cfg.train_dataloader.dataset.metainfo = {'classes': tuple('5678901234')}
    runner = runner_of(cfg)
    with pytest.raises(ValueError, match=r"teacher was trained on the classes.*class 0 is '5' here"):
        runner.train()
    cfg = config(tmp_path, older, epochs=2)
    with pytest.raises(ValueError, match=r'start has alone=2, .*this run has 2'):
        runner_of(cfg).train()


TOGETHER = """
import sys, copy, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from tests.distillation.test_growth import ALONE, HEAD, OLD, own_state, student_of
from tests.distillation.test_untouched import OPTIMIZERS, WRAPPERS, run
dist.init_process_group('gloo')
with DefaultScope.overwrite_default_scope('mmpretrain'):
    for optimizer in OPTIMIZERS:
        for wrapper in WRAPPERS:
            model = student_of(start=ALONE)
            before = own_state(model)
            wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
            used = run(wrapped, optimizer, wrapper)
            after = own_state(model)
            for name, value in after.items():
                if name in HEAD:
                    assert torch.equal(value[:OLD], before[name][:OLD]), name
                    assert (value[OLD:] != before[name][OLD:]).any(), name
                else:
                    assert torch.equal(value, before[name]), name
            assert {name for name, p in model.named_parameters() if p in used.state} == HEAD
            run(wrapped, used, wrapper, first=4)
            later = own_state(model)
            assert not [name for name in later if torch.equal(later[name], after[name])]
            for value in later.values():
                both = [torch.empty_like(value) for _ in range(2)]
                dist.all_gather(both, value.contiguous())
                assert torch.equal(*both)
print('new rows alone, then all', flush=True)
dist.barrier()
"""


def test_two_processes(tmp_path):
    script = tmp_path / 'together.py'
    script.write_text(TOGETHER)
    assert all('new rows alone, then all' in process.stdout for process in together(script, ROOT))


def test_two_processes_by_the_launcher(older, tmp_path):
    values = tiny_options(3, log_level='INFO', **{'train_dataloader.batch_size': 5, 'model.start.alone': 1,
                                                  'model.teacher.checkpoint': str(older)})  # fmt: skip
    both = together('tools/train.py', 'configs/digits/lwf_resnet.py', '--launcher', 'pytorch', '--work-dir', tmp_path,
                    *options(values))  # fmt: skip
    assert 'accuracy/old' in both[0].stdout
    state = read_checkpoint(str(tmp_path / 'epoch_3.pth'))['state_dict']
    load_strictly(copy.deepcopy(state))
