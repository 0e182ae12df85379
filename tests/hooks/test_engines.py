"""What cannot be done with sharded parameters is refused, and what can is not."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper

from mmkd_plugin import distill
from mmkd_plugin.hooks import engines
from mmkd_plugin.optim import BoundedOptimWrapper
from tests.conftest import KD, build, student_cfg
from tests.distillation.test_untouched import HINT, LATER, student_of

LOSSES = {**KD, **HINT}


@pytest.fixture(params=['FSDP', 'DeepSpeed'])
def engine(request, monkeypatch):
    monkeypatch.setattr(engines, 'engine_of', lambda model: request.param)
    return request.param


def runner_of(model, *hooks, wrapper=OptimWrapper, full=True, **options):
    optimizer = wrapper(torch.optim.SGD(model.parameters(), lr=0.1), **options)
    strategy = SimpleNamespace(_is_full_state_dict=lambda: full)
    return SimpleNamespace(model=model, optim_wrapper=optimizer, hooks=list(hooks), strategy=strategy)


def check(runner):
    engines.check_engine(runner, runner.model.distill)


@pytest.mark.usefixtures('engine')
def test_losses_that_are_always_on():
    check(runner_of(student_of(LOSSES)))
    check(runner_of(student_of({'loss_kd': {**KD['loss_kd'], 'schedule': {'warmup': 2}}})))
    check(runner_of(student_of(LOSSES), clip_grad={'clip_value': 1.0, 'type': 'value'}))


def test_what_needs_whole_parameters(engine):
    refused = {
        r'off at some time \(schedule': runner_of(student_of({**KD, 'loss_hint': {**HINT['loss_hint'], **LATER}})),
        'a task loss that is off': runner_of(student_of(LOSSES, task_loss={'loss_weight': 0.0})),
        r'losses of weight 0 \(loss_hint\)': runner_of(
            student_of({**KD, 'loss_hint': {**HINT['loss_hint'], 'loss_weight': 0.0}})
        ),
        'or are an average': runner_of(distill(build(student_cfg()), KD, teacher={'type': 'Average', 'momentum': 0.1})),
        'bounds gradients': runner_of(student_of(LOSSES), wrapper=BoundedOptimWrapper),
        'has EMAHook': runner_of(student_of(LOSSES), EMAHook()),
    }
    for message, runner in refused.items():
        with pytest.raises(ValueError, match=f'(?s){message}.*and trains with {engine}.*or use DDP'):
            check(runner)


def test_gradients_clipped_by_their_norm(engine):
    runner = runner_of(student_of(LOSSES), clip_grad={'max_norm': 1.0})
    if engine == 'DeepSpeed':
        return check(runner)
    with pytest.raises(ValueError, match='clip_grad by a norm'):
        check(runner)


def test_checkpoints_of_pieces(engine):
    if engine == 'DeepSpeed':
        pytest.skip('mmengine writes whole ones')
    runner = runner_of(student_of(LOSSES), full=False)
    with pytest.raises(ValueError, match="state_dict_cfg='local'"):
        check(runner)
    del runner.strategy  # mmengine's Runner
    with pytest.raises(ValueError, match="runner_type='FlexibleRunner'"):
        check(runner)


def test_no_engine():
    check(runner_of(student_of({**KD, 'loss_hint': {**HINT['loss_hint'], **LATER}}), EMAHook()))
    assert engines.engine_of(torch.nn.Linear(1, 1)) == ''
    assert engines.engine_of(type('MMDeepSpeedEngineWrapper', (), {})()) == 'DeepSpeed'
