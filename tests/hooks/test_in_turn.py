"""Learners are updated one after the other, from the same batch."""

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch.nn.functional import cross_entropy

from mmkd_plugin import distill
from mmkd_plugin.hooks import InTurnHook
from mmkd_plugin.losses import kd_loss
from tests.conftest import KD, build, student_cfg
from tests.distillation.test_each import EACH
from tests.distillation.test_step import set_progress
from tests.end_to_end.helpers import ROOT, digits_cfg, runner_of, together
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab
SGD: dict[str, Any] = {'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.1}


def data(n=8, seed=1):
    from mmpretrain.structures import DataSample

    images = torch.randint(0, 256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return {'inputs': images, 'data_samples': [DataSample().set_gt_label(i % 10) for i in range(n)]}


def learners(names=('peer',), losses=None, **more):
    peers = {n: {'type': 'Peer', 'model': build(student_cfg(), 7 + i), **more} for i, n in enumerate(names)}
    return distill(build(student_cfg()), losses or {'loss_kl': EACH}, teachers=peers).train()


def runner_like(model, **wrapper):
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    return SimpleNamespace(model=model, optim_wrapper=OptimWrapper(optimizer, **wrapper))


def train(runner, batch, steps=1):
    """What mmengine's loop does."""
    hook = InTurnHook()
    hook.before_train(runner)
    for _ in range(steps):
        hook.before_train_iter(runner, 0, batch)
        logged = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        hook.after_train_iter(runner, 0, batch, logged)
    return logged


def naive(nets, batch, steps):
    """Algorithm 1 of the paper, by hand; whoever teaches predicts as in training and keeps its statistics."""
    optimizers = [torch.optim.SGD(net.parameters(), **SGD) for net in nets]
    labels = torch.tensor([sample.gt_label.item() for sample in batch['data_samples']])
    for _ in range(steps):
        logged = []
        for number, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            images = net.data_preprocessor(copy.deepcopy(batch), True)['inputs']
            with torch.no_grad():
                others = [copy.deepcopy(o)(images, mode='tensor') for n, o in enumerate(nets) if n != number]
            z = net(images, mode='tensor')
            losses = [cross_entropy(z, labels), *(kd_loss(z, other, 1.0) / len(others) for other in others)]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
            logged.append([loss.item() for loss in losses])
    return logged


@pytest.mark.parametrize('names', ['a', 'ab'])
def test_it_is_the_papers_algorithm(names):
    model = learners(names)
    nets = [copy.deepcopy(net) for net in (build(student_cfg()).train(), *model.distill.peers.values())]
    logged = train(runner_like(model), data(), steps=3)
    expected = naive(nets, data(), steps=3)
    for net, found in zip(nets, (model, *model.distill.peers.values()), strict=True):
        own = {key: value for key, value in found.state_dict().items() if not key.startswith('distill.')}
        torch.testing.assert_close(own, dict(net.state_dict()), rtol=1e-4, atol=1e-5)
    keys = [['loss', *(k for k in logged if k.startswith('loss_kl_student'))]]
    keys += [[f'{n}.loss', *(k for k in logged if k.startswith(f'loss_kl_{n}'))] for n in names]
    assert [[logged[k].item() for k in own] for own in keys] == [pytest.approx(own, rel=1e-3) for own in expected]


@pytest.mark.parametrize('turn', ['student', 'a', 'b'])
def test_others_are_untouched_bit_for_bit(turn):
    hint = {'type': 'FitNetLoss', 'on': 'backbone.layer2', 'regressor': 'conv', 'learner': 'each'}
    model = learners('ab', {'loss_kl': EACH, 'loss_hint': hint})
    runner = runner_like(model)
    train(runner, data())  # momentum of everybody
    before, states = (
        copy.deepcopy(model.state_dict()),
        copy.deepcopy(runner.optim_wrapper.optimizer.state_dict()['state']),
    )
    model.distill.planner.turns.learner = turn
    model.train_step(data(seed=2), runner.optim_wrapper)

    def owner(key):
        parts = key.split('.')
        if parts[0] != 'distill':
            return 'student'
        return parts[2] if parts[1] == 'peers' else model.distill.losses[parts[2]].learner

    after = model.state_dict()
    assert {owner(key) for key in after if not torch.equal(after[key], before[key])} == {turn}
    assert any('running_mean' in key and not torch.equal(after[key], before[key]) for key in after)
    names = [name for name, _ in model.named_parameters()]
    now = runner.optim_wrapper.optimizer.state_dict()['state']
    for number, name in enumerate(names):
        same = torch.equal(now[number]['momentum_buffer'], states[number]['momentum_buffer'])
        assert same == (owner(name) != turn), name


def test_turns_see_the_same_batch_and_draw_the_same():
    """Mixup by the data preprocessor, and dropout."""
    seen = []
    model = learners('ab')
    from mmpretrain.models.utils.batch_augments import RandomBatchAugment

    model.data_preprocessor.batch_augments = RandomBatchAugment([{'type': 'Mixup', 'alpha': 0.8}], None)
    model.data_preprocessor.num_classes, model.data_preprocessor.to_onehot = 10, True
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append((args[0].clone(), torch.rand(1))))
    runner = runner_like(model)
    train(runner, data())
    train(runner, data())
    assert len(seen) == 6
    for images, drawn in seen[1:3]:
        assert torch.equal(images, seen[0][0])
        assert torch.equal(drawn, seen[0][1])
    assert not torch.equal(seen[3][0], seen[0][0])


def test_who_has_nothing_to_learn_has_no_turn():
    passes = []
    late = {**EACH, 'schedule': {'begin': 1}}
    model = learners(losses={'loss_kl': late}, task_loss={'schedule': {'begin': 1}})
    model.distill.peers.peer.register_forward_pre_hook(lambda *_: passes.append('peer'))
    model.backbone.register_forward_pre_hook(lambda *_: passes.append('student'))
    set_progress(0, 0)
    assert list(train(runner_like(model), data())) == ['loss']
    assert passes == ['student']
    set_progress(1, 1)
    assert {'peer.loss', 'loss_kl_student', 'loss_kl_peer'} < set(train(runner_like(model), data()))
    assert passes == ['student', 'student', 'peer', 'student', 'peer']


def config(folder, epochs=2, hooks=(), **more):
    cfg = digits_cfg(folder, epochs, 'digits/mutual_resnet.py')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks = [*cfg.custom_hooks, {'type': 'InTurnHook'}, *hooks]
    cfg.merge_from_dict(more)
    return cfg


def test_killed_and_resumed_and_logged(tmp_path):
    runner = runner_of(config(tmp_path / 'whole', hooks=[{'type': 'EMAHook'}], log_level='INFO'))
    whole = runner.train().state_dict()
    assert runner.iter == 8
    kill(config(tmp_path / 'part', hooks=[{'type': 'EMAHook'}]), 6)
    after = resumed(config(tmp_path / 'part', hooks=[{'type': 'EMAHook'}]))
    torch.testing.assert_close(after.state_dict(), whole, rtol=0, atol=0)
    lines = [json.loads(line) for line in next(tmp_path.glob('whole/*/vis_data/scalars.json')).read_text().splitlines()]
    assert {'loss', 'peer.loss', 'loss_kl_student', 'loss_kl_peer', 'lr'} < set(lines[-1])
    log = next(tmp_path.glob('whole/*/*.log')).read_text()
    assert 'phase of' not in log


def test_phases_are_told_once_for_each_learner(tmp_path):
    late = {'model.losses.loss_kl.schedule': {'begin': 1}, 'log_level': 'INFO'}
    runner_of(config(tmp_path, 3, **late)).train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('phase of') == 4
    assert 'phase of peer + loss_kl_peer from epoch 1' in log


EXITS = {'type': 'Exits', 'after': ['backbone.layer2', 'backbone.layer3'], 'to': 'backbone.layer4'}


def test_exits_have_the_students_turn(student):
    peer = {'type': 'Peer', 'model': build(student_cfg(), 7)}
    kd = {'type': 'KDLoss', 'learner': 'exits', 'on': {'exits': '0.fc', 'student': 'head.fc'}, 'temperature': 1.0}
    model = distill(student, {'loss_kl': EACH, 'loss_kd': kd}, teachers={'peer': peer, 'exits': EXITS}).train()
    assert [term.name for term in model.distill.terms] == ['loss_kl_student', 'loss_kl_peer', 'loss_kd']
    assert model.distill.planner.has_turn() == ['student', 'peer']
    runner, before = runner_like(model), copy.deepcopy(model.state_dict())
    model.distill.planner.turns.learner = 'student'
    logged = model.train_step(data(), runner.optim_wrapper)
    assert list(logged) == ['loss', 'exits.0.loss', 'exits.1.loss', 'loss_kl_student', 'loss_kd']
    after = model.state_dict()
    assert not torch.equal(after['distill.peers.exits.0.fc.weight'], before['distill.peers.exits.0.fc.weight'])
    assert all(torch.equal(after[key], before[key]) for key in after if key.startswith('distill.peers.peer.'))
    before = copy.deepcopy(after)
    model.distill.planner.turns.learner = 'peer'
    assert list(model.train_step(data(), runner.optim_wrapper))[-2:] == ['peer.loss', 'loss_kl_peer']
    after = model.state_dict()
    assert {key.split('.')[2] for key in after if not torch.equal(after[key], before[key])} == {'peer'}


def test_an_average_of_updates_is_refused(student):
    teachers = {'peer': {'type': 'Peer', 'model': build(student_cfg(), 7)}, 'mean': {'type': 'Average'}}
    losses = {'loss_kl': EACH, 'loss_mean': {**KD['loss_kd'], 'teacher': 'mean'}}
    with pytest.raises(RuntimeError, match=r'mean \(Average\) takes over every update'):
        train(runner_like(distill(student, losses, teachers=teachers)), data())


def test_mistakes(tmp_path):
    with pytest.raises(RuntimeError, match='accumulative_counts=2, expected 1'):
        train(runner_like(learners(), accumulative_counts=2), data())
    with pytest.raises(RuntimeError, match='nobody to take turns with'):
        train(runner_like(distill(build(student_cfg()), KD, teacher=build(student_cfg(), 7))), data())


TWO = """
import sys, copy, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from tests.hooks.test_in_turn import data, learners, runner_like, train
dist.init_process_group('gloo')
rank = dist.get_rank()
with DefaultScope.overwrite_default_scope('mmpretrain'):
    model = learners('ab').eval()  # batch statistics of a half are others
    whole = copy.deepcopy(model)
    batch = data()
    half = {'inputs': batch['inputs'][rank::2], 'data_samples': batch['data_samples'][rank::2]}
    wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    runner = runner_like(wrapped)
    train(runner, half, steps=3)
    train(runner_like(whole), batch, steps=3)
    torch.testing.assert_close(model.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-6)
    for value in model.parameters():
        both = [torch.empty_like(value.data) for _ in range(2)]
        dist.all_gather(both, value.data.contiguous())
        assert torch.equal(*both)
    model.train()
    before = copy.deepcopy(model.state_dict())
    model.distill.planner.turns.learner = 'a'
    wrapped.train_step(half, runner.optim_wrapper)
    changed = {'.'.join(k.split('.')[:3]) if k.startswith('distill') else '' for k, v in model.state_dict().items()
               if not torch.equal(v, before[k])}
    assert changed == {'distill.peers.a'}, changed
print('one on the joined batch', flush=True)
dist.barrier()
"""


def test_two_processes_are_one_on_the_joined_batch(tmp_path):
    script = tmp_path / 'two.py'
    script.write_text(TWO)
    assert all('one on the joined batch' in process.stdout for process in together(script, ROOT))
