"""FitNet: the formula with and without its regressor, hand values, and which layer the regressor is."""

import itertools
import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkd_plugin.losses import FitNetLoss, fitnet_loss
from mmkd_plugin.losses.norms import ConnectorNorm1d, ConnectorNorm2d

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal

EQUAL: list[tuple[int, ...]] = [(1, 1, 1, 1), (2, 3, 2, 4), (3, 5), (1, 2)]
OTHER_SIZE = [
    ((2, 3, 4, 4), (2, 3, 2, 2)),
    ((2, 3, 2, 3), (2, 3, 5, 4)),  # places of the pooled map overlap
    ((1, 2, 4, 2), (1, 2, 2, 3)),  # higher and narrower
]
REGRESSORS = ['conv_bn_relu', 'conv_bn', 'conv']
# student, teacher, and the layer that meets them: its type, kernel, stride and padding
CONNECTED: list[Any] = [
    ((3, 2, 4, 6), (3, 3, 2, 3), nn.Conv2d, 3, 2, 1),
    ((3, 2, 2, 2), (3, 3, 4, 4), nn.ConvTranspose2d, 4, 2, 1),
    ((3, 3, 2, 3), (3, 2, 2, 3), nn.Conv2d, 1, 1, 0),
    ((3, 2, 5, 3), (3, 3, 3, 3), nn.Conv2d, 1, 1, 0),
    ((3, 2, 2, 2), (3, 3, 3, 5), nn.Conv2d, 1, 1, 0),
    ((3, 2, 4, 4), (3, 3, 2, 4), nn.Conv2d, 1, 1, 0),  # twice as high, as wide
    ((3, 4), (3, 6), nn.Linear, None, None, None),
]


def as_maps(tensor: Tensor) -> list[Any]:
    """Nested lists; a vector is a map of one place."""
    return (tensor if tensor.ndim != 2 else tensor[:, :, None, None]).tolist()


def built(shapes: Iterable[tuple[int, ...]], regressor: str, **kwargs: Any) -> FitNetLoss:
    torch.manual_seed(0)
    loss = FitNetLoss(regressor=regressor, **kwargs)
    loss.build_connectors(*(torch.Size(shape) for shape in shapes))
    return loss


def layers(loss: FitNetLoss) -> list[Any]:
    leaves = [module for module in loss.regressor.modules() if not list(module.children())]
    return [leaf for leaf in leaves if not isinstance(leaf, nn.Identity)]


@pytest.mark.parametrize('shapes', [*((shape, shape) for shape in EQUAL), *OTHER_SIZE])
def test_value_and_gradient_are_those_of_the_formula(shapes):
    student, teacher = normal(*shapes)
    value, gradient = value_and_gradient(fitnet_loss, student, teacher)
    assert value.item() == pytest.approx(naive.fitnet(as_maps(student), as_maps(teacher)).real, rel=1e-9)
    expected = naive.gradient(
        lambda x: naive.fitnet(x, as_maps(teacher)), torch.tensor(as_maps(student), dtype=torch.float64)
    )
    torch.testing.assert_close(gradient, expected.reshape(shapes[0]), rtol=1e-9, atol=1e-12)
    identity = built(shapes, 'identity', loss_weight=3.0)
    assert not list(identity.parameters())
    torch.testing.assert_close(identity(student, teacher), 3 * value)


def test_hand_values():
    # 1, 4, 9 and 16 over four elements
    assert fitnet_loss(torch.tensor([[1.0, -2.0], [3.0, -4.0]]), torch.zeros(2, 2)).item() == pytest.approx(7.5)
    # [1 3; 5 7] pooled is 4, beside 1
    student = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert fitnet_loss(student, torch.ones(1, 1, 1, 1)).item() == pytest.approx(9)
    assert fitnet_loss(torch.ones(1, 1, 1, 1), student).item() == pytest.approx(9)
    # a constant difference d: d², with a slope of 2d over the number of elements
    for (teacher,), difference in itertools.product((normal((2, 3, 4, 4)), normal((4, 6))), (0.5, -3.0)):
        value, gradient = value_and_gradient(fitnet_loss, teacher + difference, teacher)
        assert value.item() == pytest.approx(difference**2, rel=1e-12)
        torch.testing.assert_close(gradient, torch.full_like(teacher, 2 * difference / teacher.numel()))


@pytest.mark.parametrize('regressor', REGRESSORS)
@pytest.mark.parametrize(('student', 'teacher', 'kind', 'kernel', 'stride', 'padding'), CONNECTED)
def test_regressor_meets_the_teacher(student, teacher, kind, kernel, stride, padding, regressor):
    first, *rest = layers(built((student, teacher), regressor))
    assert type(first) is kind
    assert first.weight.shape[:2] == (
        (student[1], teacher[1]) if kind is nn.ConvTranspose2d else (teacher[1], student[1])
    )
    if kind is not nn.Linear:
        assert (first.kernel_size, first.stride, first.padding) == ((kernel,) * 2, (stride,) * 2, (padding,) * 2)
    assert (first.bias is not None) == (regressor == 'conv')
    norm = ConnectorNorm1d if kind is nn.Linear else ConnectorNorm2d
    expected = {'conv_bn_relu': [norm, nn.ReLU], 'conv_bn': [norm], 'conv': []}[regressor]
    assert [type(layer) for layer in rest] == expected


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('regressor', REGRESSORS)
@pytest.mark.parametrize('shapes', [case[:2] for case in CONNECTED])
def test_class_is_the_formula_after_the_regressor(shapes, regressor, training):
    student, teacher = normal(*shapes)
    loss = built(shapes, regressor, loss_weight=0.7).double().train(training)
    first, *rest = layers(loss)
    tensors = {'student': student, 'weight': first.weight}
    if first.bias is not None:
        tensors['bias'] = first.bias
    running = None
    if rest:
        norm = rest[0]
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.data = torch.rand_like(tensor) + 0.5
        tensors |= {'norm.weight': norm.weight, 'norm.bias': norm.bias}
        if not training:
            running = norm.running_mean.tolist(), norm.running_var.tolist()
    lists = {name: tensor.tolist() if name != 'student' else as_maps(tensor) for name, tensor in tensors.items()}
    target = as_maps(teacher)

    def formula(name: str, changed: Any) -> complex:
        values = lists | {name: changed}
        weight = values['weight'] if student.ndim == 4 else [[[[w]] for w in row] for row in values['weight']]
        if isinstance(first, nn.ConvTranspose2d):
            x = naive.deconvolved(values['student'], weight, values.get('bias'))
        elif isinstance(first, nn.Conv2d):
            x = naive.convolved(values['student'], weight, values.get('bias'), first.stride[0], int(first.padding[0]))
        else:
            x = naive.convolved(values['student'], weight, values.get('bias'))
        if rest:
            x = naive.normalised(x, values['norm.weight'], values['norm.bias'], running)
        if regressor == 'conv_bn_relu':
            x = naive.rectified(x)
        return 0.7 * naive.fitnet(x, target)

    value = loss(student.requires_grad_(), teacher)
    assert value.item() == pytest.approx(formula('student', lists['student']).real, rel=1e-9)
    gradients = torch.autograd.grad(value, list(tensors.values()))
    for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
        (direction,) = normal(tensor.shape, seed=1)
        tensor = tensor.detach()
        if name == 'student' and tensor.ndim == 2:
            tensor, direction, gradient = (x[:, :, None, None] for x in (tensor, direction, gradient))
        expected = naive.slope(partial(formula, name), tensor, direction)
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-8, abs=1e-11), name


def test_defaults():
    assert repr(FitNetLoss()) == repr(FitNetLoss('conv_bn_relu', loss_weight=100))


@pytest.mark.parametrize(
    ('student', 'teacher'),
    [
        ((4, 3), (4, 5)),
        ((4, 3, 2, 2), (4, 1, 2, 2)),  # would broadcast
        ((4, 3, 4, 4), (4, 5, 2, 2)),
        ((4, 3, 1, 1), (4, 3)),
        ((4, 3), (4, 3, 1, 1)),
    ],
)
def test_other_shapes_are_refused(student, teacher):
    """Such as a vector and a map; channels may differ where the regressor learns to meet them."""
    refusing = [lambda: fitnet_loss(torch.zeros(student), torch.zeros(teacher)),
                lambda: built((student, teacher), 'identity')]  # fmt: skip
    for call in refusing:
        with pytest.raises(ValueError, match=r'expected|use regressor=') as error:
            call()
        assert str(student[1]) in str(error.value)
        assert str(teacher[1]) in str(error.value)
    if len(student) != len(teacher):
        for regressor in REGRESSORS:
            with pytest.raises(ValueError, match='expected two maps'):
                built((student, teacher), regressor)


def test_an_unknown_regressor_is_told_which_are_known():
    with pytest.raises(ValueError, match="'conv_bn_relu', 'conv_bn', 'conv', 'identity'"):
        FitNetLoss('linear')


def test_a_target_that_a_relu_cannot_reach_is_told_once():
    loss = FitNetLoss()
    loss.build_connectors((2, 3, 4, 4), (2, 3, 4, 4))
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        loss.eval()(maps, maps)
        loss.train()(maps, maps)
        loss(maps, maps)
    assert len(told) == 1
    assert "take regressor='conv'" in str(told[0].message)
