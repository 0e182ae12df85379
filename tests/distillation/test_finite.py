"""A run whose losses are not finite ends, everywhere, with a word on what is to blame."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmkd_plugin import distill
from mmkd_plugin.distillation import finite
from mmkd_plugin.distillation.finite import PATIENCE, FiniteGuard
from tests.conftest import KD, batch, build, student_cfg

IMAGES = torch.ones(2, 1, 4, 4)
NET = nn.Linear(2, 2)
FINE, BAD = {'loss': torch.tensor(1.0)}, {'loss': torch.tensor(1.0), 'loss_kd': [torch.tensor(float('inf'))]}


def test_a_loss_is_named():
    guard = FiniteGuard()
    guard.watch(FINE, IMAGES, NET)
    with pytest.raises(FloatingPointError, match=r"not finite: \{'loss_kd': inf\}; all .*'loss': 1.0.*learning rate"):
        guard.watch(BAD, IMAGES, NET)


def test_other_entries_are_not_looked_at():
    FiniteGuard().watch({**FINE, 'accuracy': torch.tensor(float('nan'))}, IMAGES, NET)


def test_images_that_are_not_finite_are_to_blame(student, teacher):
    data = batch()
    data['inputs'][1, 0, 3, 3] = float('nan')
    with pytest.raises(FloatingPointError, match='The images of this batch are not finite, so the data') as caught:
        distill(student, KD, teacher=teacher)(**data, mode='loss')
    assert 'learning rate' not in str(caught.value)


def test_weights_that_are_not_finite_are_to_blame(student, teacher):
    student.head.fc.weight.data[0, 0] = float('nan')
    model = distill(student, KD, teacher=teacher)
    with pytest.raises(ValueError, match=r'1 weights of the student are not finite before the first step: head\.fc'):
        model(**batch(), mode='loss')


def test_float16_overflows_are_the_scalers(monkeypatch):
    said = []
    monkeypatch.setattr(finite, 'print_log', lambda text, *_: said.append(text))
    guard = FiniteGuard()
    with torch.autocast('cpu', torch.float16):
        for _ in range(PATIENCE - 1):
            guard.watch(BAD, IMAGES, NET)
        assert len(said) == 1
        guard.watch(FINE, IMAGES, NET)
        for _ in range(PATIENCE - 1):
            guard.watch(BAD, IMAGES, NET)
        with pytest.raises(FloatingPointError):
            guard.watch(BAD, IMAGES, NET)


def test_bfloat16_overflows_are_not():
    with torch.autocast('cpu', torch.bfloat16), pytest.raises(FloatingPointError):
        FiniteGuard().watch(BAD, IMAGES, NET)


def test_an_overflow_of_the_students_own_loss_is_survived(teacher):
    """As the plain student would with a gradient scaler: the step is skipped, and training goes on."""
    model = distill(build(student_cfg()), KD, teacher=teacher)
    scaler = torch.GradScaler('cpu')
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.head.state_dict())

    def step(factor):
        with torch.autocast('cpu', torch.float16):
            losses = model(**batch(), mode='loss')
        total = sum(losses.values()) * factor
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    own = model.head.loss_module.loss_weight
    model.head.loss_module.loss_weight = float('inf')
    step(1)
    torch.testing.assert_close(model.head.state_dict(), before, rtol=0, atol=0)
    model.head.loss_module.loss_weight = own
    step(1)
    assert not torch.equal(model.head.fc.weight, before['fc.weight'])


def test_another_process_is_told(monkeypatch):
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'all_reduce', lambda value, op: value.fill_(1.0))
    with pytest.raises(FloatingPointError, match='a loss of another process is not finite'):
        FiniteGuard().watch(FINE, IMAGES, NET)


def test_a_look_without_training_waits_for_nobody(monkeypatch):
    def alone(*_):
        pytest.fail('waited for other processes')

    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'all_reduce', alone)
    with torch.no_grad():
        FiniteGuard().watch(FINE, IMAGES, NET)


def test_copies_begin_anew():
    guard = FiniteGuard()
    guard.watch(FINE, IMAGES, NET)
    assert copy.deepcopy(guard)._last is None
    assert pickle.loads(pickle.dumps(guard))._last is None
