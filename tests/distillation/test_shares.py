"""Shares of the gradient: against a naive way, one loss in the config at a time."""

import copy
import math

import pytest
import torch

from mmkd_plugin import distill
from mmkd_plugin.distillation.shares import gradient_shares
from tests.conftest import KD, batch, build, student_cfg, trained_like

pytestmark = pytest.mark.openmmlab
BOTH = {**KD, 'loss_at': {'type': 'ATLoss', 'on': 'backbone.layer3', 'loss_weight': 10.0}}


def distilled(losses, **more):
    torch.manual_seed(0)
    return distill(
        build(student_cfg()), copy.deepcopy(losses), teacher=trained_like(build(student_cfg(), seed=7)), **more
    )


def naive(losses, task_weight):
    """The whole gradient of a model that has only these losses."""
    model = distilled(losses, task_loss={'loss_weight': task_weight})
    model.train()
    found = model(**batch(), mode='loss')
    total = sum(value for name, value in found.items() if 'loss' in name and value.requires_grad)
    total.backward()
    grads = [
        p.grad if p.grad is not None else torch.zeros_like(p)
        for n, p in model.named_parameters()
        if 'distill.' not in n
    ]
    return torch.cat([g.flatten() for g in grads])


@pytest.mark.parametrize('scale', [1.0, 1024.0])
def test_as_one_by_one(scale):
    model = distilled(BOTH)
    model.train()
    shares = {share.name: share for share in gradient_shares(model, model(**batch(), mode='loss'), scale)}
    both = naive(BOTH, 1.0)
    alone = {name: naive({name: cfg}, 0.0) for name, cfg in BOTH.items()}
    alone = {'task': both - alone['loss_kd'] - alone['loss_at'], **alone}
    total = sum(float(g.norm()) for g in alone.values())
    assert list(shares) == ['task', 'loss_kd', 'loss_at']
    for name, gradient in alone.items():
        assert shares[name].norm == pytest.approx(float(gradient.norm()), rel=1e-3)
        assert shares[name].share == pytest.approx(float(gradient.norm()) / total, rel=1e-3)
        cosine = float(gradient @ alone['task']) / float(gradient.norm() * alone['task'].norm())
        assert shares[name].cosine == pytest.approx(cosine, abs=2e-3)
    assert math.isclose(sum(share.share for share in shares.values()), 1, rel_tol=1e-6)


def test_the_step_is_the_same_afterwards():
    gradients = []
    for looks in (False, True):
        model = distilled(BOTH)
        model.train()
        losses = model(**batch(), mode='loss')
        if looks:
            gradient_shares(model, losses)
        total, _ = model.parse_losses(losses)
        total.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_without_a_task_there_is_no_angle():
    model = distilled(KD, task_loss={'loss_weight': 0.0})
    model.train()
    (share,) = gradient_shares(model, model(**batch(), mode='loss'))
    assert (share.name, share.share, share.cosine) == ('loss_kd', 1.0, None)


def test_each_learner_has_its_own():
    losses = {'loss_x': {'type': 'KDLoss', 'on': 'head.fc', 'learner': 'each'}}
    torch.manual_seed(0)
    model = distill(build(student_cfg()), losses, teachers={'peer': {'type': 'Peer', 'model': student_cfg()}})
    model.init_weights()
    model.train()
    shares = gradient_shares(model, model(**batch(), mode='loss'))
    assert [(share.learner, share.name) for share in shares] == [
        ('student', 'task'), ('student', 'loss_x_student'), ('peer', 'task'), ('peer', 'loss_x_peer'),
    ]  # fmt: skip
