"""AB: the formula at one stage and over several, hand values, and what it sees of the teacher."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkd_plugin.losses import ABLoss, ab_loss
from mmkd_plugin.losses.norms import ConnectorNorm2d

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal
from . import naive_stages

SIZES = [
    ((2, 3, 2, 3), (2, 3, 2, 3)),
    ((2, 3, 4, 4), (2, 3, 2, 2)),
    ((2, 3, 2, 3), (2, 3, 5, 4)),  # places of the pooled map overlap
]


def built(student: Any, teacher: Any, **arguments: Any) -> ABLoss:
    torch.manual_seed(0)
    loss = ABLoss(**arguments)
    loss.build_connectors(student, teacher)
    return loss.double()


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


@pytest.mark.parametrize('margin', [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize('shapes', SIZES)
def test_value_and_gradient_are_those_of_the_formula(shapes, margin):
    student, teacher = normal(*shapes)
    teacher.view(-1)[::5] = 0  # off, as what is below
    value, gradient = value_and_gradient(ab_loss, student, teacher, margin)
    expected = naive_stages.ab(student.tolist(), teacher.tolist(), margin)
    assert value.item() == pytest.approx(expected.real, rel=1e-9)
    slopes = naive.gradient(lambda x: naive_stages.ab(x, teacher.tolist(), margin), student)
    torch.testing.assert_close(gradient, slopes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('training', [True, False])
def test_class_is_the_formula_after_the_connectors(training):
    shapes = [(2, 2, 3, 2), (2, 3, 2, 2), (2, 3, 1, 2)], [(2, 3, 3, 2), (2, 4, 2, 2), (2, 2, 1, 2)]
    students, teachers = (normal(*own, seed=i) for i, own in enumerate(shapes))
    loss = built(*shapes, margin=0.8, loss_weight=0.7).train(training)
    for norm in (module for module in loss.modules() if isinstance(module, ConnectorNorm2d)):
        for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
            torch.nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]
    buffers = {name: buffer.tolist() for name, buffer in loss.named_buffers()}
    tensors = {f'student.{i}': s.requires_grad_() for i, s in enumerate(students)} | dict(loss.named_parameters())
    lists = {name: tensor.tolist() for name, tensor in tensors.items()}

    def formula(name: str, changed: Any) -> complex:
        values, stages = lists | {name: changed}, []
        for i, teacher in enumerate(teachers):
            norm = f'connectors.{i}.1'
            running = None if training else (buffers[f'{norm}.running_mean'], buffers[f'{norm}.running_var'])
            x = naive.convolved(values[f'student.{i}'], values[f'connectors.{i}.0.weight'])
            x = naive.normalised(x, values[f'{norm}.weight'], values[f'{norm}.bias'], running)
            stages.append(naive_stages.ab(x, teacher.tolist(), 0.8))
        return 0.7 * naive_stages.weighted(stages)

    value = loss(students, teachers)
    assert value.item() == pytest.approx(formula('student.0', lists['student.0']).real, rel=1e-9)
    for (name, tensor), gradient in zip(tensors.items(), torch.autograd.grad(value, [*tensors.values()]), strict=True):
        (direction,) = normal(tensor.shape, seed=1)
        expected = naive.slope(partial(formula, name), tensor.detach(), direction)
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-8, abs=1e-11), name


def test_hand_values():
    # on the wrong side by 0.5, right and far enough twice, on the wrong side by 0.5; the margin is 1
    student, teacher = (0.5, -2.0, 2.0, -0.5), (-1.0, -1.0, 1.0, 1.0)
    each = [ab_loss(row(s), row(t)).item() for s, t in zip(student, teacher, strict=True)]
    assert each == [2.25, 0, 0, 2.25]
    assert ab_loss(row(*student), row(*teacher)).item() == 4.5  # the sum over a map
    assert ab_loss(row(*student).view(4, 1, 1, 1), row(*teacher).view(4, 1, 1, 1)).item() == 4.5 / 4  # over the batch
    # right, but too near: (1 − 0.25)²
    assert ab_loss(row(0.25), row(3)).item() == ab_loss(row(-0.25), row(-3)).item() == 0.5625
    # slope 2 (s + 1) and 2 (s − 1)
    _, gradient = value_and_gradient(ab_loss, row(*student), row(*teacher))
    assert gradient.flatten().tolist() == [3, 0, 0, -3]


def test_deeper_stages_weigh_more():
    stages = [row(0.5), row(0.5, 0.5), row(0.5, 0.5, 0.5)]
    loss = built([x.shape for x in stages], [x.shape for x in stages], skip_equal=True, loss_weight=1.0)
    value = loss(stages, [-x for x in stages])
    assert value.item() == pytest.approx(2.25 * (1 / 4 + 2 / 2 + 3))


def test_only_the_teachers_signs_count():
    student, teacher = normal((3, 4, 2, 3), (3, 4, 2, 3))
    scale = 10 ** torch.linspace(-6, 6, 4, dtype=torch.float64)[:, None, None]
    assert ab_loss(student, teacher * scale) == ab_loss(student, teacher.sign()) == ab_loss(student, teacher)
    assert ab_loss(student, -teacher) != ab_loss(student, teacher)


def test_zero_where_signs_agree_with_a_margin_and_not_at_equality():
    (teacher,) = normal((3, 4, 2, 3))
    far = teacher.sign() * (1 + teacher.abs())
    value, gradient = value_and_gradient(ab_loss, far, teacher)
    assert value == 0
    assert (gradient == 0).all()
    assert ab_loss(teacher, teacher) > 0.1
    assert ab_loss(teacher, teacher, margin=0.0) == 0


def test_connectors():
    shapes = [(2, 3, 4, 4), (2, 5, 2, 2)], [(2, 3, 4, 4), (2, 6, 2, 2)]
    loss = built(*shapes)
    kinds = [[type(layer) for layer in connector.children()] for connector in loss.connectors]
    assert kinds == [[nn.Conv2d, ConnectorNorm2d]] * 2
    convs = [module for module in loss.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.weight.shape for conv in convs] == [(3, 3, 1, 1), (6, 5, 1, 1)]
    assert [conv.bias for conv in convs] == [None, None]
    skipping = built(*shapes, skip_equal=True)
    assert [type(connector) for connector in skipping.connectors] == [nn.Identity, nn.Sequential]


def test_defaults():
    assert repr(ABLoss()) == repr(ABLoss(1.0, skip_equal=False, loss_weight=0.003))
    student, teacher = normal((2, 3, 4, 4), (2, 3, 4, 4))
    assert ab_loss(student, teacher) == ab_loss(student, teacher, margin=1.0)


def test_mistakes():
    student, teacher = normal((2, 3, 4, 4), (2, 4, 4, 4))
    with pytest.raises(ValueError, match=r'\(2, 3, 4, 4\) and teacher \(2, 4, 4, 4\).*as many channels'):
        ab_loss(student, teacher)
    with pytest.raises(ValueError, match='margin=-1 given'):
        ab_loss(student, student, margin=-1)
    with pytest.raises(ValueError, match='expected as many of each, from shallow to deep'):
        built([(2, 3, 4, 4)], [(2, 3, 4, 4)] * 2)
    with pytest.raises(ValueError, match='2 student and 1 teacher stages given, expected 1 of each'):
        built([(2, 3, 4, 4)], [(2, 4, 4, 4)])([student, student], [teacher])
