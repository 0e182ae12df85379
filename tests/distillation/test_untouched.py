"""What is off is untouched, bit for bit: parameters, optimizer states, running statistics."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper

from mmkd_plugin import distill
from tests.conftest import KD, batch, build, student_cfg, trained_like
from tests.distillation.test_step import set_progress

LATER = {'schedule': {'begin': 3}}
HINT = {'loss_hint': {'type': 'FitNetLoss', 'on': 'backbone.layer2', 'loss_weight': 1.0}}
SGD: dict[str, Any] = {'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.1}
OPTIMIZERS = [(torch.optim.SGD, SGD), (torch.optim.AdamW, {'lr': 0.01, 'weight_decay': 0.1})]
WRAPPERS = [{}, {'clip_grad': {'max_norm': 0.5}}, {'accumulative_counts': 2}]


def student_of(losses, seed=0, **kwargs):
    return distill(build(student_cfg(), seed), losses, teacher=trained_like(build(student_cfg(), 7)), **kwargs)


def run(model, optimizer, wrapper, steps=4, first=0, keep_gradients=False):
    """Real training steps of mmengine; returns the optimizer. One epoch is two steps long."""
    if isinstance(optimizer, tuple):
        optimizer = optimizer[0](model.parameters(), **optimizer[1])
    optim = OptimWrapper(optimizer, **wrapper)
    optim.initialize_count_status(model, first, first + steps)
    if keep_gradients:
        optim.zero_grad = lambda **_: optimizer.zero_grad(set_to_none=False)
    for step in range(first, first + steps):
        set_progress(step // 2, step)
        data = batch()
        data['inputs'] = data['inputs'] * (1 + 0.1 * step)
        model.train_step({'inputs': data['inputs'] * 78.6 + 33.3, 'data_samples': data['data_samples']}, optim)
    return optimizer


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=['sgd', 'adamw'])
@pytest.mark.parametrize('wrapper', WRAPPERS, ids=['plain', 'clip', 'accumulate'])
class TestIdleConnector:
    def test_before_its_schedule(self, optimizer, wrapper):
        model = student_of({**KD, 'loss_hint': {**HINT['loss_hint'], **LATER}})
        before = copy.deepcopy(model.distill.state_dict())
        used = run(model, optimizer, wrapper)
        torch.testing.assert_close(model.distill.state_dict(), before, rtol=0, atol=0)
        assert not any(p in used.state for p in model.distill.parameters())
        run(model, used, wrapper, first=6)
        assert all(not torch.equal(v, before[k]) for k, v in model.distill.state_dict().items() if 'weight' in k)

    @pytest.mark.parametrize('keep_gradients', [False, True])
    def test_after_its_schedule(self, optimizer, wrapper, keep_gradients):
        model = student_of({**KD, 'loss_hint': {**HINT['loss_hint'], 'schedule': {'end': 1}}})
        used = run(model, optimizer, wrapper, 2, keep_gradients=keep_gradients)
        weights, states = copy.deepcopy(model.distill.state_dict()), states_of(model.distill, used)
        assert states
        run(model, used, wrapper, 4, first=2, keep_gradients=keep_gradients)
        torch.testing.assert_close(model.distill.state_dict(), weights, rtol=0, atol=0)
        torch.testing.assert_close(states_of(model.distill, used), states, rtol=0, atol=0)

    def test_the_rest_trains_as_without_it(self, optimizer, wrapper):
        one = student_of({**KD, 'loss_hint': {**HINT['loss_hint'], **LATER}})
        other = student_of(KD)
        run(one, optimizer, wrapper)
        run(other, optimizer, wrapper)
        states = ({k: v for k, v in m.state_dict().items() if 'distill' not in k} for m in (one, other))
        torch.testing.assert_close(*states, rtol=0, atol=0)


def states_of(module, optimizer):
    return [copy.deepcopy(optimizer.state[p]) for p in module.parameters() if p in optimizer.state]


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=['sgd', 'adamw'])
@pytest.mark.parametrize('wrapper', WRAPPERS, ids=['plain', 'clip', 'accumulate'])
def test_task_loss_that_is_off(optimizer, wrapper):
    """FitNets' first stage: the guided layer and what is below learn; above, nothing moves."""
    model = student_of(HINT, task_loss={'schedule': {'begin': 2}})
    before = copy.deepcopy(model.state_dict())
    used = run(model, optimizer, wrapper)
    after = model.state_dict()
    moved = {key for key in after if not torch.equal(after[key], before[key])}
    above = ('backbone.layer3', 'backbone.layer4', 'head')
    assert not [key for key in moved if key.startswith(above)]
    expected = [k for k in after if not k.startswith(above) and ('running' in k or 'weight' in k)]
    assert set(expected) <= moved
    assert not any(p in used.state for p in model.head.parameters())
    run(model, used, wrapper, first=4)
    later = model.state_dict()
    assert not [key for key in later if key.startswith(above) and torch.equal(later[key], before[key])]


def test_a_frozen_network_below_keeps_its_statistics_going():
    """What a user froze is not off: its batch norms go on as in plain training."""
    model = student_of(
        {'loss_hint': {**HINT['loss_hint'], 'on': 'backbone.layer3'}}, task_loss={'schedule': {'begin': 2}}
    )
    model.backbone.layer1.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    run(model, OPTIMIZERS[0], {}, 1)
    key = 'backbone.layer1.0.bn1.'
    assert torch.equal(before[key + 'weight'], model.state_dict()[key + 'weight'])
    assert not torch.equal(before[key + 'running_mean'], model.state_dict()[key + 'running_mean'])


def test_an_update_that_accumulated_over_the_end_of_a_phase_counts():
    model = student_of({**KD, 'loss_hint': {**HINT['loss_hint'], 'schedule': {'end': 1, 'by_epoch': False}}})
    before = copy.deepcopy(model.distill.state_dict())
    run(model, OPTIMIZERS[0], {'accumulative_counts': 2}, 2)
    assert not torch.equal(model.distill.state_dict()['losses.loss_hint.0.regressor.0.weight'],
                           before['losses.loss_hint.0.regressor.0.weight'])  # fmt: skip


def test_steps_of_another_optimizer_change_nothing():
    model = student_of({**KD, 'loss_hint': {**HINT['loss_hint'], **LATER}})
    other = torch.nn.Linear(2, 2)
    foreign = torch.optim.SGD(other.parameters(), lr=0.1, weight_decay=0.1)
    set_progress(0)
    model(**batch(), mode='loss')
    weight = model.distill.losses['loss_hint'][0].regressor[0].weight
    weight.grad = torch.zeros_like(weight)
    other(torch.ones(1, 2)).sum().backward()
    foreign.step()
    assert weight.grad is not None
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert weight.grad is None


def test_a_branch_that_is_skipped_now_and_then_learns_when_it_runs():
    """Layers that drop out: what the first step does not reach, a later one may."""
    model = student_of({'loss_kd': KD['loss_kd']}, task_loss={'loss_weight': 0.0})
    model.backbone.layer4[1].forward_once = model.backbone.layer4[1].forward
    runs = iter([False, True, False, True])
    block = model.backbone.layer4[1]
    block.forward = lambda x: block.forward_once(x) if next(runs) else x
    optimizer, weights = None, [block.conv1.weight.clone()]
    statistics = [block.bn1.running_mean.clone()]
    for step in range(4):
        optimizer = run(model, optimizer or OPTIMIZERS[0], {}, 1, first=step)
        weights.append(block.conv1.weight.detach().clone())
        statistics.append(block.bn1.running_mean.clone())
    for values in (weights, statistics):
        assert [not torch.equal(a, b) for a, b in pairwise(values)] == [False, True, False, True]


def test_an_optimizer_of_a_part_of_the_model():
    """What it does not hold does not stand in the way of the rest."""
    model = student_of(HINT, task_loss={'schedule': {'begin': 2}})
    optimizer = torch.optim.SGD([*model.backbone.parameters()], **SGD)  # and not the head
    before = copy.deepcopy(model.backbone.layer4.state_dict())
    for step in range(2):
        for parameter in model.backbone.layer4.parameters():
            parameter.grad = torch.ones_like(parameter)  # as another phase may have left
        run(model, optimizer, {}, 1, first=step)
    torch.testing.assert_close(model.backbone.layer4.state_dict(), before, rtol=0, atol=0)


def test_nothing_that_trains_is_an_error():
    model = student_of(KD, task_loss={'loss_weight': 0.0})
    model.distill.losses['loss_kd'][0].loss_weight = 0.0
    set_progress(0)
    with pytest.raises(RuntimeError, match='nothing trains in epoch 0'):
        model(**batch(), mode='loss')
    MessageHub.get_current_instance().update_info('max_epochs', 3)
    model = student_of({'loss_kd': {**KD['loss_kd'], 'schedule': {'end': 2}}}, task_loss={'loss_weight': 0.0})
    with pytest.raises(ValueError, match='from epoch 2 on every loss is off'):
        model(**batch(), mode='loss')


def test_what_is_off_costs_no_backward():
    model = student_of(HINT, task_loss={'schedule': {'begin': 2}})
    set_progress(0)
    losses = model(**batch(), mode='loss')
    assert losses['loss'] == 0
    assert not losses['loss'].requires_grad


def test_activation_checkpoints_hide_what_a_phase_trains():
    cfg = student_cfg()
    cfg['backbone']['with_cp'] = True
    model = distill(build(cfg), {'loss_kd': {**KD['loss_kd']}}, teacher=build(student_cfg(), 7),
                    task_loss={'loss_weight': 0.0})  # fmt: skip
    with pytest.raises(RuntimeError, match='hidden inside an activation checkpoint: set with_cp=False'):
        model(**batch(), mode='loss')


def test_exits_train_the_stages_while_the_students_own_loss_is_off():
    """They go on from its pass, which therefore has gradient, and running statistics, as far as they read it."""
    exits = {'type': 'Exits', 'after': ['backbone.layer2'], 'to': 'backbone.layer4'}
    kd = {'type': 'KDLoss', 'learner': 'exits', 'on': {'exits': '0.fc', 'student': 'head.fc'}, 'temperature': 1.0}
    late = {'schedule': {'begin': 2}}
    model = distill(build(student_cfg()), {'loss_kd': kd}, teachers={'exits': exits}, task_loss=late)
    before = copy.deepcopy(model.state_dict())
    run(model, OPTIMIZERS[0], {})
    after = model.state_dict()
    changed = {'.'.join(key.split('.')[:2]) for key in after if not torch.equal(after[key], before[key])}
    assert changed == {'backbone.conv1', 'backbone.bn1', 'backbone.layer1', 'backbone.layer2', 'distill.peers'}
