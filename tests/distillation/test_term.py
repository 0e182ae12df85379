import copy
from typing import Any

import pytest
import torch

from mmkd_plugin.distillation.needs import Context
from mmkd_plugin.distillation.term import ConfiguredLoss, check_losses, read_pairs, read_task_loss
from mmkd_plugin.losses import DistillLoss
from mmkd_plugin.networks.taps import Tap


def written(on):
    return [(str(s), str(t)) for s, t in read_pairs(on, 'loss')]


def test_pairs_as_written():
    assert written('a.b') == [('a.b', 'a.b')]
    assert written(['a', {'student': 'b', 'teacher': 'c:input'}]) == [('a', 'a'), ('b', 'c:input')]
    assert written({'student': ['a', 'b'], 'teacher': ['c', 'd[1]']}) == [('a', 'c'), ('b', 'd[1]')]


@pytest.mark.parametrize('on', [None, [], {'student': 'a'}, {'student': ['a'], 'teacher': ['b', 'c']}, 3])
def test_bad_pairs(on):
    with pytest.raises(ValueError, match=r"losses\['loss_x'\] has on="):
        read_pairs(on, 'loss_x')


NOTHING = Context(0, None, torch.device('cpu'), {})


def test_layers_are_summed():
    loss = ConfiguredLoss('loss_kd', {'type': 'KDLoss', 'on': ['a', 'b'], 'loss_weight': 2.0}, ['t'])
    assert len(loss) == 2
    one = {Tap('a'): torch.randn(3, 4), Tap('b'): torch.randn(3, 4)}
    other = {Tap('a'): torch.randn(3, 4), Tap('b'): torch.randn(3, 4)}
    expected = sum(module(one[tap], other[tap]) for module, tap in zip(loss, one, strict=True))
    assert torch.equal(loss(one, other, NOTHING), expected)


def test_loss_that_returns_no_scalar_is_refused():
    class Vector(DistillLoss):
        def forward(self, student, teacher):
            return student.mean(1)

    loss = ConfiguredLoss('loss_v', {'type': Vector, 'on': 'a'}, ['t'])
    with pytest.raises(ValueError, match=r"losses\['loss_v'\] \(Vector\) cannot work on student 'a' \(2, 3\).*scalar"):
        loss.connect({Tap('a'): torch.ones(2, 3)}, {Tap('a'): torch.ones(2, 3)}, NOTHING)


def test_weight_zero_is_off():
    loss = ConfiguredLoss('loss_kd', {'type': 'KDLoss', 'on': 'a', 'loss_weight': 0}, ['t'])
    assert loss.factor(0, 0) == 0
    loss[0].loss_weight = 0.5  # type: ignore[assignment]
    assert loss.factor(0, 0) == 1


def test_an_entry_set_to_none_is_dropped():
    assert check_losses({'loss_a': None, 'loss_b': {'type': 'KDLoss'}}) == {'loss_b': {'type': 'KDLoss'}}
    with pytest.raises(ValueError, match='are dropped; to train the plain student use its own config'):
        check_losses({'loss_a': None})


def test_names_are_words():
    name: Any = 3
    with pytest.raises(ValueError, match=r"losses=\{'3': \.\.\.\} given"):
        ConfiguredLoss(name, {'type': 'KDLoss', 'on': 'a'}, ['t'])


def test_connectors_follow_the_students_precision():
    loss = ConfiguredLoss('loss_hint', {'type': 'FitNetLoss', 'on': 'a'}, ['t'])
    taps = {Tap('a'): torch.randn(4, 3, 2, 2, dtype=torch.bfloat16)}
    loss.connect(taps, {Tap('a'): torch.randn(4, 5, 2, 2)}, NOTHING)
    assert {p.dtype for p in loss.parameters()} == {torch.bfloat16}
    assert loss(taps, {Tap('a'): torch.randn(4, 5, 2, 2)}, NOTHING).dtype == torch.float32


def test_task_loss():
    weight, schedule = read_task_loss({'loss_weight': 0.1, 'schedule': {'begin': 3}})
    assert (weight, schedule.factor(2, 0), schedule.factor(3, 0)) == (0.1, 0.0, 1.0)
    assert read_task_loss(None)[0] == 1.0
    with pytest.raises(ValueError, match=r"unknown keys \['weight'\]"):
        read_task_loss({'weight': 1})
    with pytest.raises(ValueError, match='task_loss: loss_weight=-1 given'):
        read_task_loss({'loss_weight': -1})
    for wrong in (None, '0.1', True):
        with pytest.raises(ValueError, match=r'task_loss: loss_weight=.* given, expected a finite number'):
            read_task_loss({'loss_weight': wrong})


def test_tensors_without_rows_give_zero_and_leave_statistics_alone():
    loss = ConfiguredLoss('loss_hint', {'type': 'FitNetLoss', 'on': 'a'}, ['t'])
    taps = {Tap('a'): torch.randn(4, 3, 2, 2)}
    loss.connect(taps, taps, NOTHING)
    before = copy.deepcopy(loss.state_dict())
    empty = {Tap('a'): torch.randn(0, 3, 2, 2, requires_grad=True)}
    value = loss(empty, empty, NOTHING)
    value.backward()
    assert value == 0
    assert all(p.grad is not None and not p.grad.any() for p in loss.parameters())
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)
