"""An optimizer of its own for each learner."""

import copy
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch.nn.functional import cross_entropy

from mmkd_plugin import distill
from mmkd_plugin.losses import kd_loss
from mmkd_plugin.optim import of_learner
from tests.conftest import build, student_cfg
from tests.distillation.test_each import EACH
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.hooks.test_in_turn import data, learners
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab
SGD: dict[str, Any] = {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.1}
ADAM: dict[str, Any] = {'type': 'AdamW', 'lr': 0.01}
OWN: dict[str, Any] = {
    'constructor': 'LearnerOptimWrapperConstructor', 'student': {'optimizer': SGD}, 'peer': {'optimizer': ADAM}
}  # fmt: skip


def naive(nets, optimizers, counts=1, clip=None, steps=4):
    labels = torch.tensor([i % 10 for i in range(8)])
    for step in range(steps):
        images = nets[0].data_preprocessor(data(seed=step), True)['inputs']
        z = [net(images, mode='tensor') for net in nets]
        for number in (0, 1):
            loss = cross_entropy(z[number], labels) + kd_loss(z[number], z[1 - number].detach(), 1.0)
            (loss / counts).backward()
        if (step + 1) % counts == 0:
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(nets[1].parameters(), clip)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()


@pytest.mark.parametrize(
    ('more', 'peer', 'plain'),
    [
        ({}, {}, {}),
        ({'accumulative_counts': 2}, {}, {'counts': 2}),
        ({}, {'clip_grad': {'max_norm': 0.1}}, {'clip': 0.1}),
    ],
    ids=['plain', 'accumulate', 'clip'],
)
def test_each_is_updated_by_its_own(more, peer, plain):
    model = learners()
    nets = [build(student_cfg()).train(), copy.deepcopy(model.distill.peers.peer)]
    cfg = {**OWN, **more, 'peer': {**OWN['peer'], **peer}}
    optimizers = build_optim_wrapper(model, cfg)
    optimizers.initialize_count_status(model, 0, 4)
    for step in range(4):
        model.train_step(data(seed=step), optimizers)
    sgd = torch.optim.SGD(nets[0].parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    naive(nets, [sgd, torch.optim.AdamW(nets[1].parameters(), lr=0.01)], **plain)
    for net, found in zip(nets, (model, model.distill.peers.peer), strict=True):
        own = {key: value for key, value in found.state_dict().items() if not key.startswith('distill.')}
        torch.testing.assert_close(own, dict(net.state_dict()), rtol=1e-3, atol=1e-4)


def test_parts_of_losses_are_with_the_learner_that_they_teach():
    hint = {'type': 'FitNetLoss', 'on': 'backbone.layer2', 'regressor': 'conv', 'learner': 'each'}
    model = learners(losses={'loss_hint': hint})
    keys = {'distill.losses': {'lr_mult': 2.0}, 'head': {'lr_mult': 0.5}}
    cfg = {**OWN, 'peer': {'optimizer': ADAM, 'paramwise_cfg': {'custom_keys': keys}}}
    wrappers = build_optim_wrapper(model, cfg)
    assert list(wrappers.keys()) == ['student', 'peer']
    names = {id(p): name for name, p in model.named_parameters()}
    owned = {k: {names[id(p)] for g in w.optimizer.param_groups for p in g['params']} for k, w in wrappers.items()}
    assert set(names.values()) == owned['student'] | owned['peer']
    assert not owned['student'] & owned['peer']
    beside = {name for name in owned['peer'] if not name.startswith('distill.peers.peer.')}
    assert {name.split('.')[2] for name in beside} == {'loss_hint_peer'}
    rates = {names[id(g['params'][0])]: g['lr'] for g in wrappers['peer'].optimizer.param_groups}
    assert rates['distill.peers.peer.head.fc.weight'] == pytest.approx(0.005)
    assert rates['distill.losses.loss_hint_peer.0.regressor.0.weight'] == pytest.approx(0.02)
    assert rates['distill.peers.peer.backbone.conv1.weight'] == pytest.approx(0.01)


def test_paramwise_settings_of_a_peer_with_one_optimizer():
    model = learners()
    keys = {'distill.peers.peer': {'lr_mult': 0.1, 'decay_mult': 0.0}}
    wrapper = build_optim_wrapper(model, {'optimizer': SGD, 'paramwise_cfg': {'custom_keys': keys}})
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(g['params'][0])]: (g['lr'], g['weight_decay']) for g in wrapper.optimizer.param_groups}
    assert rates['distill.peers.peer.head.fc.weight'] == (pytest.approx(0.01), 0.0)
    assert rates['head.fc.weight'] == (0.1, 0.1)
    before = copy.deepcopy(model.state_dict())
    model.train_step(data(), wrapper)
    assert not torch.equal(model.distill.peers.peer.head.fc.weight, before['distill.peers.peer.head.fc.weight'])


def config(folder, epochs=4, hooks=(), **more):
    cfg = digits_cfg(folder, epochs, 'digits/mutual_resnet.py', log_level='INFO')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.optim_wrapper = copy.deepcopy(OWN)
    cfg.param_scheduler = {
        'student': {'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1},
        'peer': [{'type': 'LinearLR', 'start_factor': 0.5, 'by_epoch': False, 'begin': 0, 'end': 6}],
    }
    cfg.custom_hooks = [*cfg.custom_hooks, *hooks]
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    cfg.merge_from_dict(more)
    return cfg


@pytest.mark.parametrize('hooks', [(), ({'type': 'InTurnHook'},)], ids=['together', 'in turn'])
def test_killed_and_resumed(tmp_path, hooks):
    runner = runner_of(config(tmp_path / 'whole', hooks=hooks))
    whole = runner.train()
    rates = runner.optim_wrapper.get_lr()
    assert rates['student.lr'] == [pytest.approx(0.01)]
    assert rates['peer.lr'] == [pytest.approx(0.01)]
    kill(config(tmp_path / 'part', hooks=hooks), 6)
    after = resumed(config(tmp_path / 'part', hooks=hooks))
    torch.testing.assert_close(after.state_dict(), whole.state_dict(), rtol=0, atol=0)
    log = next(tmp_path.glob('whole/*/*.log')).read_text()
    assert 'student.lr: ' in log
    assert 'peer.lr: ' in log


def test_phases_begin_anew_and_what_is_off_is_untouched(tmp_path):
    """The peer waits for the last two epochs; there both optimizers forget, and both schedules begin anew."""
    late = {'schedule': {'begin': 2}}
    cfg = config(tmp_path, hooks=[{'type': 'PhaseHook', 'optimizer': True}])
    cfg.model.losses.loss_kl.update(late)
    cfg.model.teachers.peer.task_loss = late
    cfg.default_hooks.checkpoint.interval = 1
    runner_of(cfg).train()
    states = [torch.load(tmp_path / f'epoch_{n}.pth', weights_only=False) for n in (1, 2, 3, 4)]
    peers = [{k: v for k, v in s['state_dict'].items() if k.startswith('distill.')} for s in states]
    torch.testing.assert_close(peers[0], peers[1], rtol=0, atol=0)
    assert not torch.equal(peers[1]['distill.peers.peer.head.fc.weight'], peers[2]['distill.peers.peer.head.fc.weight'])
    assert not states[1]['optimizer']['peer']['state']
    assert states[3]['optimizer']['peer']['state'][0]['step'] == 8  # of two epochs
    rates = [s['optimizer']['student']['param_groups'][0]['lr'] for s in states]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01])


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'type': 'AmpOptimWrapper'}, "has type='AmpOptimWrapper', expected OptimWrapper.*take one optimizer, with"),
        ({'peer': {'type': 'BoundedOptimWrapper', 'optimizer': ADAM}}, r"optim_wrapper\['peer'\] has type='Bounded"),
        (
            {'peer': {'optimizer': ADAM, 'accumulative_counts': 2}},
            'accumulative_counts, expected it beside the learners',
        ),
        ({'pear': {'optimizer': ADAM}}, r"settings for \['pear', 'peer', 'student'\], expected some for each of"),
        ({'peer': 3}, r"optim_wrapper\['peer'\]=3 given"),
        ({'optimizer': SGD}, 'an optimizer beside those of the learners'),
        ({'paramwise_cfg': {'norm_decay_mult': 0.0}}, 'paramwise_cfg beside the learners'),
    ],
)
def test_mistakes(change, match):
    with pytest.raises(ValueError, match=match):
        build_optim_wrapper(learners(), {**OWN, **change})


def test_a_plain_model_is_refused_and_has_the_students_settings():
    with pytest.raises(TypeError, match='is a ImageClassifier without peers'):
        build_optim_wrapper(build(student_cfg()), OWN)
    assert of_learner(OWN, 'peer') == {'optimizer': ADAM, 'accumulative_counts': 1}
    assert of_learner({'optimizer': SGD}, 'peer') == {'optimizer': SGD}
    assert isinstance(build_optim_wrapper(build(student_cfg()), of_learner(OWN, 'student')), OptimWrapper)


def test_three(student):
    peers = {name: {'type': 'Peer', 'model': build(student_cfg(), 7)} for name in 'ab'}
    model = distill(student, {'loss_kl': EACH}, teachers=peers).train()
    own = {'student': {'optimizer': SGD}, 'a': {'optimizer': ADAM}, 'b': {'optimizer': SGD}}
    cfg = {'constructor': OWN['constructor'], **own}
    before = copy.deepcopy(model.state_dict())
    model.train_step(data(), build_optim_wrapper(model, cfg))
    assert [n for n, p in model.named_parameters() if p.ndim > 1 and torch.equal(p, before[n])] == []


def test_exits_are_with_the_student(student):
    exits = {'type': 'Exits', 'after': ['backbone.layer2'], 'to': 'backbone.layer4'}
    teachers = {'peer': {'type': 'Peer', 'model': build(student_cfg(), 7)}, 'exits': exits}
    kd = {'type': 'KDLoss', 'learner': 'exits', 'on': {'exits': '0.fc', 'student': 'head.fc'}, 'temperature': 1.0}
    model = distill(student, {'loss_kl': EACH, 'loss_kd': kd}, teachers=teachers).train()
    wrappers = build_optim_wrapper(model, OWN)
    owned = {id(p) for group in wrappers['student'].optimizer.param_groups for p in group['params']}
    assert {id(p) for p in model.distill.peers.exits.parameters()} <= owned
    assert not {id(p) for p in model.distill.peers.peer.parameters()} & owned
