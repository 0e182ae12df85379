"""A peer learns beside the student, from the same batches, and each teaches the other."""

import copy
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin import distill
from mmkd_plugin.files.checkpoint import read_checkpoint, state_dict_of
from mmkd_plugin.losses import kd_loss
from tests.conftest import batch, build, student_cfg
from tests.detection import detector, faster_rcnn_cfg
from tests.distillation.test_step import set_progress
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab
KL: dict[str, Any] = {'type': 'KDLoss', 'on': 'head.fc', 'temperature': 1.0}
MUTUAL = {'loss_kl': KL, 'loss_kl_peer': {**KL, 'learner': 'peer'}}


def pair(student, losses=MUTUAL, **peer):
    peer = {'type': 'Peer', 'model': build(student_cfg(), 7), **peer}
    return distill(student, losses, teachers={'peer': peer}).train()


def peer_cfg():
    cfg = student_cfg()
    cfg['backbone'] = {**cfg['backbone'], 'stem_channels': 8, 'base_channels': 8}
    cfg['head'] = {**cfg['head'], 'in_channels': 64}
    return cfg


def test_both_learn_from_labels_and_from_each_other(student):
    alone, other = copy.deepcopy(student).train(), build(student_cfg(), 7).train()
    model = pair(student)
    losses = model(**batch(), mode='loss')
    assert list(losses) == ['loss', 'peer.loss', 'loss_kl', 'loss_kl_peer']
    z_s, z_p = (net(batch()['inputs'], mode='tensor') for net in (alone, other))
    torch.testing.assert_close(losses['loss_kl'], kd_loss(z_s, z_p, 1.0))
    torch.testing.assert_close(losses['loss_kl_peer'], kd_loss(z_p, z_s, 1.0))
    torch.testing.assert_close(losses['peer.loss'], other(**batch(), mode='loss')['loss'])


@pytest.mark.parametrize(('name', 'taught'), [('loss_kl', False), ('loss_kl_peer', True), ('peer.loss', True)])
def test_no_loss_of_one_reaches_the_other(student, name, taught):
    model = pair(student)
    model(**batch(), mode='loss')[name].backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (key.startswith('distill.peers.peer.') == taught), key


def test_identical_peers_agree_and_still_learn_from_labels(student):
    model = pair(student, model=copy.deepcopy(student))
    losses = model(**batch(), mode='loss')
    assert losses['loss_kl'].abs() < 1e-6
    assert losses['loss_kl_peer'].abs() < 1e-6
    sum(losses.values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in (model.head.fc.weight, model.distill.peers.peer.head.fc.weight))


def test_one_pass_of_each(student):
    calls = []
    model = pair(student)
    for name, net in (('student', model), ('peer', model.distill.peers.peer)):
        net.backbone.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    model(**batch(), mode='loss')
    assert calls == ['student', 'peer']


def test_the_peer_sees_what_it_would_by_itself(student):
    cfg = {**student_cfg(), 'data_preprocessor': {'type': 'ClsDataPreprocessor', 'mean': [0.0], 'std': [255.0]}}
    other = build(cfg, 3)
    raw = {'inputs': torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8), 'data_samples': batch()['data_samples']}
    model = pair(student, model=copy.deepcopy(other))
    losses = model(**model.data_preprocessor(copy.copy(raw)), mode='loss')
    expected = other.train()(**other.data_preprocessor(copy.copy(raw)), mode='loss')
    torch.testing.assert_close(losses['peer.loss'], expected['loss'], rtol=1e-4, atol=1e-5)


def test_copies_have_a_peer_of_their_own(student):
    model = pair(student)
    twin = copy.deepcopy(model)
    assert twin.distill.sources['peer'].model is twin.distill.peers.peer
    assert twin.distill.peers.peer is not model.distill.peers.peer
    losses = twin(**batch(), mode='loss')
    sum(losses.values()).backward()
    assert model.distill.peers.peer.head.fc.weight.grad is None
    assert twin.distill.peers.peer.head.fc.weight.grad is not None


def test_initial_weights_are_its_own_and_leave_the_students_alone():
    def made(**more):
        torch.manual_seed(0)
        cfg = {**student_cfg(), 'type': 'Distilled', 'student': 'ImageClassifier', **more}
        model = MODELS.build(cfg)
        model.init_weights()
        return model, torch.rand(1)

    peers = {name: {'type': 'Peer', 'model': student_cfg()} for name in ('peer', 'other')}
    losses = {f'loss_{name}': {**KL, 'on': {'student': 'head.fc', name: 'head.fc'}} for name in peers}
    (model, drawn), (plain, expected) = (
        made(teachers=peers, losses=losses),
        made(teacher={'model': student_cfg(), 'untrained': True}, losses={'loss_kl': KL}),
    )
    nets = [model, model.distill.peers.peer, model.distill.peers.other]
    first = [net.backbone.conv1.weight for net in nets]
    assert torch.equal(first[0], plain.backbone.conv1.weight)
    assert torch.equal(drawn, expected)
    assert not any(torch.equal(a, b) for a, b in ((first[0], first[1]), (first[1], first[2]), (first[0], first[2])))


def test_weights_that_were_loaded_stay(student):
    model = pair(student, model=student_cfg())
    state = {'peer.' + key: value for key, value in build(student_cfg(), 5).state_dict().items()}
    model.distill.peers.load_state_dict(state)
    model(**batch(), mode='loss')  # the first step makes everything ready
    assert torch.equal(model.distill.peers.peer.head.fc.weight, state['peer.head.fc.weight'])


def test_it_may_start_from_a_checkpoint(student, tmp_path):
    torch.save(build(student_cfg(), 9).state_dict(), tmp_path / 'start.pth')
    model = pair(student, model=student_cfg(), checkpoint=str(tmp_path / 'start.pth'))
    model.distill.prepare(model, torch.zeros(1))
    assert torch.equal(model.distill.peers.peer.head.fc.weight, build(student_cfg(), 9).head.fc.weight)


def test_two_peers_differ_though_nothing_but_their_constructors_draws(student):
    class Plain(BaseModel):
        def __init__(self, data_preprocessor=None):
            super().__init__(data_preprocessor)
            self.fc = nn.Linear(4, 10)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            scores = self.fc(nn.functional.adaptive_avg_pool2d(inputs, 2).flatten(1))
            return {'loss': scores.square().mean()} if mode == 'loss' else scores

    MODELS.register_module(name='PlainPeer', module=Plain)
    peers = {name: {'type': 'Peer', 'model': {'type': 'PlainPeer'}} for name in ('one', 'two')}
    losses = {f'loss_{name}': {**KL, 'on': {'student': 'head.fc', name: 'fc'}} for name in peers}
    model = distill(student, losses, teachers=peers)
    model.distill.prepare(model, torch.zeros(1))
    assert not torch.equal(model.distill.peers.one.fc.weight, model.distill.peers.two.fc.weight)


def test_a_peer_that_waits_leaves_the_student_to_itself(student):
    """Its graph is not looked at: activation checkpoints, and branches that are unused now and then, are its own."""
    set_progress(0, 0)
    late = {name: {**cfg, 'schedule': {'begin': 1}} for name, cfg in MUTUAL.items()}
    model = pair(student, late, task_loss={'schedule': {'begin': 1}})
    model.distill.phases.find = lambda *_, **__: pytest.fail('looked at the graph')
    sum(model(**batch(), mode='loss').values()).backward()
    assert model.head.fc.weight.grad is not None


def test_schedules_of_its_task_and_what_is_off_is_not_run(student):
    from mmengine.logging import MessageHub

    hub = MessageHub.get_current_instance()
    late = {name: {**cfg, 'schedule': {'begin': 1}} for name, cfg in MUTUAL.items()}
    model = pair(student, late, task_loss={'loss_weight': 0.5, 'schedule': {'begin': 1}})
    before = copy.deepcopy(model.distill.peers.state_dict())
    hub.update_info('epoch', 0)
    hub.update_info('iter', 0)
    assert list(model(**batch(), mode='loss')) == ['loss']
    torch.testing.assert_close(model.distill.peers.state_dict(), before, rtol=0, atol=0)
    hub.update_info('epoch', 1)
    assert 'peer.loss' in model(**batch(), mode='loss')


def config(folder, epochs=2, **more):
    cfg = digits_cfg(folder, epochs, 'digits/mutual_resnet.py')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.merge_from_dict(more)
    return cfg


def test_through_the_runner_killed_and_resumed(tmp_path):
    whole = runner_of(config(tmp_path / 'whole')).train().state_dict()
    kill(config(tmp_path / 'part'), 6)
    after = resumed(config(tmp_path / 'part'))
    torch.testing.assert_close(after.state_dict(), whole, rtol=0, atol=0)
    # the checkpoint's student is plain, and the peer in it is a plain model of its own
    path = tmp_path / 'part' / 'epoch_2.pth'
    plain = MODELS.build(digits_cfg(tmp_path, config='digits/resnet_student.py').model)
    checkpoint = read_checkpoint(path)
    plain.load_state_dict(state_dict_of(checkpoint), strict=True)
    peer = MODELS.build(config(tmp_path).model.teachers.peer.model)
    own = state_dict_of(checkpoint, peer='peer')
    peer.load_state_dict(own, strict=True)
    assert torch.equal(own['head.fc.weight'], after.distill.peers.peer.head.fc.weight)
    with pytest.raises(ValueError, match=r"no peer 'pear'; there are: peer"):
        state_dict_of(checkpoint, peer='pear')


def test_another_architecture_of_detectors_on_the_neck():
    losses = {'loss_hint': {'type': 'FitNetLoss', 'on': 'neck[1]', 'regressor': 'conv'}}
    wider = {'backbone.base_channels': 16, 'neck.in_channels': [16, 32, 64, 128]}
    peer = {'type': 'Peer', 'model': detector(faster_rcnn_cfg(**wider), 1)}
    from tests.detection import batch as scenes

    model = distill(detector(faster_rcnn_cfg()), losses, teachers={'peer': peer}).train()
    result = model(**scenes(), mode='loss')
    assert {'peer.loss_rpn_cls', 'peer.loss_bbox', 'loss_hint'} <= set(result)
    model.parse_losses(result)[0].backward()
    assert all(p.grad is not None for p in model.distill.peers.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ('change', 'losses', 'error', 'match'),
    [
        (
            {'model': torch.nn.Linear(2, 2)},
            MUTUAL,
            TypeError,
            r'is a Linear, expected a mmengine BaseModel',
        ),
        ({'modle': 1}, MUTUAL, ValueError, r"peer \(Peer\) has the unknown keys \['modle'\] \(did you mean model"),
        ({'untrained': True}, MUTUAL, ValueError, r"unknown keys \['untrained'\]"),
        ({'task_loss': {'weight': 1}}, MUTUAL, ValueError, r'peer: task_loss has the unknown keys'),
        ({'task_loss': {'loss_weight': 0}}, {'loss_kl': KL}, ValueError, r'nothing trains the peer: its task_loss has'),
        (
            {},
            {'loss_kl': {**KL, 'learner': 'pear'}},
            ValueError,
            r"learner='pear', expected one of \['student'",
        ),
    ],
)
def test_mistakes(student, change, losses, error, match):
    with pytest.raises(error, match=match):
        pair(student, losses, **change)


def test_a_peer_that_nobody_compares_is_refused(student, teacher):
    peers = {'peer': {'type': 'Peer', 'model': student_cfg()}, 'teacher': teacher}
    with pytest.raises(ValueError, match=r"no loss reads the teachers \['peer'\]"):
        distill(student, {'loss_kd': {**KL, 'teacher': 'teacher'}}, teachers=peers)


def test_names_that_would_be_added_up(student):
    losses = {'loss_kl': {**KL, 'on': {'student': 'head.fc', 'lossy': 'head.fc'}}}
    with pytest.raises(ValueError, match="the peer 'lossy', expected an identifier without 'loss' in it"):
        distill(student, losses, teachers={'lossy': {'type': 'Peer', 'model': student_cfg()}})


def test_peers_share_nothing(student, teacher):
    with pytest.raises(ValueError, match='the peer is, or shares modules or weights with, the student'):
        pair(student, model=student)
    both = {'peer': {'type': 'Peer', 'model': teacher}, 'frozen': {'model': teacher}}
    losses = {name: {**KL, 'on': {'student': 'head.fc', name[5:]: 'head.fc'}} for name in ('loss_peer', 'loss_frozen')}
    with pytest.raises(ValueError, match='the frozen is, or shares modules or weights with, the peer'):
        distill(student, losses, teachers=both)


def test_rois_of_peers_are_refused():
    peer = {'type': 'Peer', 'model': detector(faster_rcnn_cfg(), 1)}
    losses = {'loss_kd': {'type': 'KDLoss', 'on': 'roi_head.bbox_head.fc_cls'}}
    with pytest.raises(ValueError, match='each peer samples RoIs of its own'):
        distill(detector(faster_rcnn_cfg()), losses, teachers={'peer': peer})
