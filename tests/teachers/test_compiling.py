import copy
from typing import Any

import pytest
import torch
from torch import nn

from mmkd_plugin import distill
from mmkd_plugin.facts import Batch
from mmkd_plugin.networks import Tap
from mmkd_plugin.teachers import build_source, compiling
from tests.conftest import KD, batch

FC, LAYER2, INSIDE = Tap('head.fc'), Tap('backbone.layer2'), Tap('backbone.layer3.0.conv1')


@pytest.fixture
def traced(monkeypatch):
    """Compiled by torch's tracer alone, which takes no compiler and seconds less; the shapes that it met."""
    shapes: list[Any] = []

    def backend(graph, example_inputs):
        shapes.append([tuple(x.shape) for x in example_inputs if isinstance(x, torch.Tensor)])
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda function: compile_(function, backend=backend))
    yield shapes
    torch.compiler.reset()


@pytest.fixture
def told(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(compiling, 'print_log', lambda text, *_: said.append(text))
    return said


def made(student, teacher, *taps, **spec):
    source: Any = build_source({'model': teacher, **spec}, 'teacher', student)
    source.probe(Batch(torch.zeros(2, 1, 28, 28)), dict.fromkeys(taps))
    source.load()
    source.get_ready(torch.zeros(1))
    return source


def read(source, images, *taps):
    return source.read(Batch(images), dict.fromkeys(taps or source.taps))


def test_values_taps_and_early_stop_stay_what_they_are(student, teacher, traced):
    plain, fast = (made(student, teacher, FC, LAYER2, INSIDE, compile=on) for on in (False, True))
    assert {'backbone.layer1', 'backbone.layer2', 'backbone.layer3.1', 'backbone.layer4'} <= set(fast._parts.paths)
    assert not {'backbone', 'backbone.layer3', 'backbone.layer3.0'} & set(fast._parts.paths)
    images = batch()['inputs']
    for taps in ((FC, LAYER2, INSIDE), (INSIDE,), (FC,), (LAYER2,)):
        for _ in range(2):
            torch.testing.assert_close(read(fast, images, *taps), read(plain, images, *taps), rtol=1e-5, atol=1e-6)
    assert traced
    ran: list[int] = []
    fast.model.backbone.layer4.register_forward_pre_hook(lambda *_: ran.append(1))
    read(fast, images, LAYER2)
    assert not ran
    assert fast._parts.on


def test_compilations_are_bounded(student, teacher, traced):
    fast = made(student, teacher, FC, compile=True)
    for n in range(2, 16):
        read(fast, batch(n)['inputs'])
    assert 0 < len(traced) <= 2 * len(fast._parts.paths)


def test_gradients_go_through_uncompiled(student, teacher, traced):
    on = {'student': 'backbone.layer2', 'teacher': 'head.fc'}
    loss = {'type': 'FitNetLoss', 'regressor': 'identity', 'on': on, 'through': 'backbone.layer2'}
    values = []
    for compiled in (False, True):
        model = distill(copy.deepcopy(student), {'loss_through': loss}, teacher={'model': teacher, 'compile': compiled})
        value = model(**batch(), mode='loss')['loss_through']
        value.backward()
        values.append((value.detach(), model.backbone.conv1.weight.grad))
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)


def test_a_compiler_that_fails_is_told_once(student, teacher, monkeypatch, told):
    def broken(*_):
        raise OSError('no compiler')

    monkeypatch.setattr(torch, 'compile', lambda function: broken)
    plain, fast = (made(student, teacher, FC, compile=on) for on in (False, True))
    images = batch()['inputs']
    for _ in range(2):
        torch.testing.assert_close(read(fast, images), read(plain, images), rtol=0, atol=0)
    assert told == ['teacher: not compiled, it runs as it is (OSError: no compiler)']


def test_other_values_are_noticed_and_not_used(student, teacher, monkeypatch, told):
    def wrong(function):
        def run(*args):
            value = function(*args)
            return tuple(v * 1.1 for v in value) if isinstance(value, tuple) else value * 1.1

        return run

    monkeypatch.setattr(torch, 'compile', wrong)
    plain, fast = (made(student, teacher, FC, compile=on) for on in (False, True))
    images = batch()['inputs']
    for _ in range(2):
        torch.testing.assert_close(read(fast, images), read(plain, images), rtol=0, atol=0)
    assert told == ["teacher: not compiled, it runs as it is (tap 'head.fc' reads other values when it is compiled)"]


def test_the_given_module_is_left_alone(student, teacher, traced):
    distill(student, KD, teacher={'model': teacher, 'compile': True, 'optimize': False})(**batch(), mode='loss')
    assert not any('forward' in vars(module) for module in teacher.modules())
    assert not any(module._forward_pre_hooks for module in teacher.modules())


@pytest.mark.parametrize('value', ['yes', 1, None])
def test_switches_are_true_or_false(student, teacher, value):
    for key in ('compile', 'stream'):
        with pytest.raises(ValueError, match=f'{key}={value!r} given, expected True or False'):
            build_source({'model': teacher, key: value}, 'teacher', student)


@pytest.mark.slow
def test_with_a_compiler(monkeypatch):
    """As a user would: torch's own backend, on a network that it compiles in seconds."""
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 2)).eval().requires_grad_(False)
    x = torch.randn(3, 4)
    expected = model(x)
    said: list[str] = []
    monkeypatch.setattr(compiling, 'print_log', lambda text, *_: said.append(text))
    parts = compiling.CompiledParts(model, {'1'}, set(model.modules()), 'teacher')
    assert parts.paths == ['0']
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)
    assert parts.on or 'not compiled' in said[0]  # machines without a compiler
    torch.compiler.reset()
