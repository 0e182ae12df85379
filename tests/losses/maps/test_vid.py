"""VID: the formula with its regressor, hand values, and the variance, which learns."""

from math import log
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkd_plugin import distill
from mmkd_plugin.losses import VIDLoss, vid_loss
from tests.conftest import batch

from ..conftest import value_and_gradient
from ..naive_features import normal
from . import naive_connected as naive

SHAPES = [
    ((2, 2, 3, 2), (2, 3, 3, 2)),
    ((2, 2, 4, 4), (2, 3, 2, 2)),
    ((1, 3, 2, 3), (1, 2, 5, 4)),  # places of the pooled map overlap
    ((3, 1, 1, 1), (3, 1, 1, 1)),
]


def built(student: Any, teacher: Any, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    loss = VIDLoss(**kwargs)
    loss.build_connectors(student, teacher)
    return loss.double()


@pytest.mark.parametrize('shapes', SHAPES)
def test_value_and_gradients_are_those_of_the_formula(shapes):
    student, teacher = normal(*shapes)
    loss = built(*shapes, init_variance=1.5, eps=0.2, loss_weight=0.7)
    loss.alpha.data += normal(loss.alpha.shape)[0]
    naive.check(
        loss,
        [student],
        lambda: loss(student, teacher),
        lambda values: 0.7 * naive.vid(values, teacher.tolist(), eps=0.2),
    )


def test_hand_values_at_the_start():
    """½ ln 5, and ½ (1/5 + ln 5)."""
    (teacher,) = normal((2, 3, 4, 4))
    variance = torch.full((3,), 5.0, dtype=torch.float64)
    assert vid_loss(teacher, teacher, variance).item() == pytest.approx(0.8047190, abs=1e-7)
    assert vid_loss(teacher - 1, teacher, variance).item() == pytest.approx(0.9047190, abs=1e-7)


def test_the_best_variance_is_the_squared_error():
    (teacher,) = normal((2, 2, 3, 3))
    error = torch.tensor([0.3, 2.0], dtype=torch.float64)
    variance = error.square().requires_grad_()
    value = vid_loss(teacher + error[:, None, None], teacher, variance)
    assert value.item() == pytest.approx(0.5 + log(0.3 * 2.0) / 2)
    (slope,) = torch.autograd.grad(value, variance)
    assert slope.abs().max() < 1e-15
    for factor in (0.9, 1.1):
        assert vid_loss(teacher + error[:, None, None], teacher, factor * variance) > value


def test_below_zero_where_small_variances_are_right():
    (teacher,) = normal((2, 2, 3, 3))
    assert vid_loss(teacher, teacher, torch.full((2,), 0.01, dtype=torch.float64)).item() == pytest.approx(log(0.1))


@pytest.mark.parametrize(('variance', 'eps'), [(5.0, 1e-5), (0.02, 1e-5), (100.0, 0.5), (1.1e-5, 1e-5), (1e4, 1e-5)])
def test_the_variance_starts_as_given(variance, eps):
    loss = built(*SHAPES[0], init_variance=variance, eps=eps)
    assert loss.alpha.shape == (3,)
    found = torch.nn.functional.softplus(loss.alpha) + eps
    assert found.tolist() == pytest.approx([variance] * 3, rel=1e-5)


def test_learnable_parts():
    loss = built((2, 7, 4, 4), (2, 5, 4, 4))
    weights = {name: tuple(p.shape) for name, p in loss.named_parameters()}
    assert weights == {
        'alpha': (5,),
        'regressor.0.weight': (5, 7, 1, 1),
        'regressor.2.weight': (5, 5, 1, 1),
        'regressor.4.weight': (5, 5, 1, 1),
    }
    assert repr(VIDLoss()) == repr(VIDLoss(init_variance=5.0, eps=1e-5, loss_weight=1.0))


def test_the_larger_map_is_averaged_down_before_the_regressor():
    student, teacher = normal((2, 2, 4, 4), (2, 3, 2, 2))
    loss = built(student.shape, teacher.shape)
    pooled = torch.nn.functional.avg_pool2d(student, 2)
    torch.testing.assert_close(loss(student, teacher), loss(pooled, teacher))
    larger = teacher.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(loss(pooled, larger), loss(pooled, teacher))


def test_variance_of_channels_far_off_is_no_trouble():
    student, teacher = (x.float() for x in normal((2, 2, 3, 3), (2, 2, 3, 3)))
    for alpha in (-1e4, -100.0, 100.0, 1e4):
        variance = torch.nn.functional.softplus(torch.full((2,), alpha)) + 1e-5
        value, gradient = value_and_gradient(vid_loss, student, teacher, variance)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.openmmlab
def test_the_variance_is_trained_and_can_be_kept_from_decay(student, teacher):
    from mmengine.config import ConfigDict
    from mmengine.optim import build_optim_wrapper

    losses = {'loss_vid': {'type': 'VIDLoss', 'on': ['backbone.layer1', 'backbone.layer3']}}
    model = distill(student, losses, teacher=teacher)
    alphas = [module.alpha for module in model.distill.losses.loss_vid]
    before = [alpha.detach().clone() for alpha in alphas]
    wrapper = build_optim_wrapper(
        model,
        ConfigDict(
            optimizer={'type': 'SGD', 'lr': 0.1, 'weight_decay': 5e-4},
            paramwise_cfg={'custom_keys': {'.alpha': {'decay_mult': 0}}},
        ),
    )
    decays = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
    assert [decays[id(alpha)] for alpha in alphas] == [0, 0]
    assert sum(decay == 0 for decay in decays.values()) == 2
    total, _ = model.parse_losses(model(**batch(), mode='loss'))
    wrapper.update_params(total)
    assert all((alpha != start).all() for alpha, start in zip(alphas, before, strict=True))


@pytest.mark.parametrize('value', [1e-5, 1e-6, 0, 0.0])
def test_a_variance_not_above_eps_is_refused(value):
    with pytest.raises(ValueError, match=f'init_variance={value!r} given, expected a finite number > 1e-05'):
        VIDLoss(init_variance=value)
    with pytest.raises(ValueError, match='eps=0 given, expected a finite number > 0'):
        VIDLoss(eps=0)


@pytest.mark.parametrize('shapes', [((2, 3), (2, 3)), ((2, 3, 4, 4), (2, 3)), ((2, 3, 4), (2, 3, 4))])
def test_vectors_are_refused(shapes):
    with pytest.raises(ValueError, match='expected two maps'):
        VIDLoss().build_connectors(*shapes)


@pytest.mark.parametrize('other', [((2, 1, 3, 3), (2,)), ((1, 2, 3, 3), (2,)), ((2, 2, 3, 3), (1,))])
def test_what_would_broadcast_is_refused(other):
    teacher, variance = other
    with pytest.raises(ValueError, match='expected two maps'):
        vid_loss(torch.zeros(2, 2, 3, 3), torch.zeros(teacher), torch.ones(variance))


def test_empty() -> None:
    maps = torch.zeros(0, 2, 3, 3, requires_grad=True)
    variance = torch.full((2,), 5.0, requires_grad=True)
    value: Tensor = vid_loss(maps, maps.detach(), variance)
    assert value == 0
    value.backward()
    assert variance.grad is not None
    assert not variance.grad.any()
