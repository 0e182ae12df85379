"""ReviewKD: the context loss and the fusions by their formulas, hand values, and which stage sees which."""

from collections.abc import Sequence
from functools import partial
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkd_plugin.losses import ReviewKDLoss, hcl_loss
from mmkd_plugin.losses.norms import ConnectorNorm2d

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal

SIZES = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (8, 8), (2, 8), (8, 3), (1, 4)]
Shapes = Sequence[tuple[int, ...]]
# students and teachers, from shallow to deep
PYRAMID: tuple[Shapes, Shapes] = ([(3, 2, 4, 4), (3, 3, 2, 2), (3, 4)], [(3, 3, 4, 4), (3, 2, 2, 2), (3, 5)])
OTHER_SIZES: tuple[Shapes, Shapes] = (
    [(2, 3, 6, 5), (2, 2, 3, 2), (2, 3, 2, 1)],
    [(2, 2, 4, 4), (2, 3, 2, 3), (2, 2, 3, 2)],
)


def as_map(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim != 2 else tensor[:, :, None, None]


def built(student: Shapes, teacher: Shapes, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    loss = ReviewKDLoss(**kwargs)
    loss.build_connectors([torch.Size(shape) for shape in student], [torch.Size(shape) for shape in teacher])
    return loss


def taps(student: Shapes, teacher: Shapes) -> tuple[list[Tensor], list[Tensor]]:
    return normal(*student), normal(*teacher, seed=1)


def norms(loss: ReviewKDLoss) -> list[Any]:
    return [module for module in loss.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize('size', SIZES)
def test_hcl_and_its_gradient_are_those_of_the_formula(size):
    student, teacher = normal((2, 2, *size), (2, 2, *size))
    value, gradient = value_and_gradient(hcl_loss, student, teacher)
    assert value.item() == pytest.approx(naive.hcl(student.tolist(), teacher.tolist()).real, rel=1e-9)
    expected = naive.gradient(lambda x: naive.hcl(x, teacher.tolist()), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('size', SIZES)
def test_hand_value_of_a_constant_offset(size):
    (teacher,) = normal((3, 2, *size))
    for offset in (0.5, -3.0):
        assert hcl_loss(teacher + offset, teacher).item() == pytest.approx(offset**2, rel=1e-12)


@pytest.mark.parametrize(
    ('height', 'divisor'),
    [
        (2, 1 + 1 / 2),  # level 1
        (3, 1 + 1 / 2 + 1 / 4),  # levels 2 and 1
        (4, 1.75),
        (5, 1.875),  # levels 4, 2 and 1
        (8, 1.875),
    ],
)
def test_hand_values_of_a_difference_that_averages_out(height, divisor):
    """Signs that alternate leave nothing in any window of any level: the MSE over the divisor."""
    up_and_down = (-1.0) ** torch.arange(height)
    pair = torch.tensor([1.0, -1.0] + [0.0] * (height - 2))
    difference = torch.outer(up_and_down, pair)[None, None]
    value = hcl_loss(difference + 5, torch.full_like(difference, 5))
    assert value.item() == pytest.approx(2 / height / divisor, rel=1e-6)


def test_hand_values_of_a_corner():
    student, teacher = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    student[0, 0, 0, 0] = 1
    # 1 in a corner: 1/16, (1/4)²/4 in the windows, (1/16)² in the mean
    assert hcl_loss(student, teacher).item() == pytest.approx((1 / 16 + 1 / 2 / 64 + 1 / 4 / 256) / 1.75)
    # likewise on 2 × 2: 1/4, and (1/4)² in the mean
    student, teacher = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    student[0, 0, 0, 0] = 1
    assert hcl_loss(student, teacher).item() == pytest.approx((1 / 4 + 1 / 2 / 16) / 1.5)


@pytest.mark.parametrize('size', [(1, 1), (2, 2), (4, 4), (8, 4), (8, 8), (12, 8)])
def test_hcl_is_at_most_the_mean_squared_error(size):
    for seed in range(5):
        student, teacher = normal((2, 3, *size), (2, 3, *size), seed=seed)
        assert 0 < hcl_loss(student, teacher) <= (student - teacher).square().mean() * (1 + 1e-12)


def test_hcl_is_a_mean_over_channels_and_quadratic():
    student, teacher = normal((4, 3, 5, 5), (4, 3, 5, 5))
    value = hcl_loss(student, teacher)
    torch.testing.assert_close(value, hcl_loss(*(x.repeat(1, 2, 1, 1) for x in (student, teacher))))
    torch.testing.assert_close(hcl_loss(student.flip(1), teacher.flip(1)), value)
    torch.testing.assert_close(hcl_loss(3 * student, 3 * teacher), 9 * value)


def test_hcl_computes_in_float32():
    """The contract knows the whole loss, whose fusions may run in half precision."""
    student, teacher = (3e3 * x.float() for x in normal((2, 3, 5, 5), (2, 3, 5, 5)))
    expected = hcl_loss(student, teacher)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast('cpu', dtype=dtype):
            assert hcl_loss(student, teacher) == expected
        halves = student.to(dtype), teacher.to(dtype)
        assert hcl_loss(*halves) == hcl_loss(*(x.float() for x in halves)) > 1e6


@pytest.mark.parametrize('teacher', [(4, 5, 2, 2), (4, 1, 2, 2), (1, 3, 2, 2), (4, 3, 1, 1)])
def test_hcl_refuses_what_would_broadcast(teacher):
    with pytest.raises(ValueError, match='expected') as error:
        hcl_loss(torch.zeros(4, 3, 2, 2), torch.zeros(teacher))
    assert str(teacher) in str(error.value)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('shapes', [PYRAMID, OTHER_SIZES, (PYRAMID[0][:1], PYRAMID[1][:1])])
def test_value_and_gradients_are_those_of_the_formula(shapes, training):
    student, teacher = taps(*shapes)
    loss = built(*shapes, loss_weight=0.7).double().train(training)
    for norm in norms(loss):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.data = torch.rand_like(tensor) + 0.5
    wanted = {f'student.{i}': tap.requires_grad_() for i, tap in enumerate(student)} | dict(loss.named_parameters())
    values = {name: tensor.detach().clone() for name, tensor in loss.state_dict().items()}
    values |= {f'student.{i}': as_map(tap.detach()) for i, tap in enumerate(student)}
    lists = {name: tensor.tolist() for name, tensor in values.items()}
    targets = [as_map(tap).tolist() for tap in teacher]

    def formula(name: str, changed: Any) -> complex:
        return 0.7 * naive.reviewkd(lists | {name: changed}, targets, training)

    value = loss(student, teacher)
    assert value.item() == pytest.approx(formula('student.0', lists['student.0']).real, rel=1e-9)
    gradients = torch.autograd.grad(value, list(wanted.values()))
    for name, gradient in zip(wanted, gradients, strict=True):
        (direction,) = normal(values[name].shape, seed=2)
        expected = naive.slope(partial(formula, name), values[name], direction)
        found = (gradient.reshape(direction.shape) * direction).sum().item()
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-10), name


def test_learnable_parts():
    loss = built(*PYRAMID, mid_channels=6)
    assert isinstance(loss.fusions, nn.ModuleList)
    assert len(loss.fusions) == 3
    fusions: list[Any] = list(loss.fusions)
    for fusion, student, teacher in zip(fusions, *PYRAMID, strict=True):
        conv, norm = fusion.project
        assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.bias) == (student[1], 6, (1, 1), None)
        assert (type(norm), norm.num_features) == (ConnectorNorm2d, 6)
        conv, norm = fusion.out
        assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.bias) == (6, teacher[1], (3, 3), None)
        assert conv.padding == (1, 1)
        assert (type(norm), norm.num_features) == (ConnectorNorm2d, teacher[1])
    for fusion in fusions[:-1]:
        assert (fusion.gate.in_channels, fusion.gate.out_channels, fusion.gate.kernel_size) == (12, 2, (1, 1))
        assert fusion.gate.bias is not None
    assert fusions[-1].gate is None


@pytest.mark.parametrize(
    ('channels', 'given', 'expected'), [(7, None, 7), (600, None, 512), (600, 5, 5), (7, 600, 600)]
)
def test_middle_channels(channels, given, expected):
    loss = built([(2, 900, 2, 2), (2, channels)], [(2, 1, 2, 2), (2, 1)], mid_channels=given)
    assert [fusion.project[0].out_channels for fusion in loss.fusions] == [expected, expected]


def test_convolutions_start_kaiming_uniform():
    """a = 1: between ±√(6 / (1 + a²) / fan_in)."""
    loss = built([(2, 300, 2, 2), (2, 200)], [(2, 20, 2, 2), (2, 20)], mid_channels=30)
    for fusion in loss.fusions:
        for conv in (fusion.project[0], fusion.out[0]):
            bound = sqrt(3 / conv.weight[0].numel())
            assert 0.99 * bound < conv.weight.abs().max().item() <= bound


def test_gates_lie_between_zero_and_one():
    loss = built(*PYRAMID, mid_channels=4).double()
    gates: list[Tensor] = []
    for fusion in loss.fusions[:-1]:
        fusion.gate.register_forward_hook(lambda module, args, out: gates.append(out.sigmoid()))
    loss(*taps(*PYRAMID))
    assert [gate.shape for gate in gates] == [(3, 2, 2, 2), (3, 2, 4, 4)]  # from deep to shallow
    assert all(((gate > 0) & (gate < 1)).all() for gate in gates)


def test_closed_and_open_gates():
    fusion = built(*PYRAMID, mid_channels=4).double().eval().fusions[0]
    x, residual = normal((2, 2, 4, 4), (2, 4, 2, 2))
    nn.init.zeros_(fusion.gate.weight)
    own, upsampled = fusion.project(x), residual.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for biases, expected in [
        ((99.0, -99.0), own),
        ((-99.0, 99.0), upsampled),
        ((99.0, 99.0), own + upsampled),
        ((0.0, 0.0), (own + upsampled) / 2),
    ]:
        fusion.gate.bias.data = torch.tensor(biases, dtype=torch.float64)
        out, passed_on = fusion(x, residual, (4, 4))
        torch.testing.assert_close(passed_on, expected)
        torch.testing.assert_close(out, fusion.out(expected))


def test_residual_is_passed_on_in_the_size_of_the_output():
    fusion = built(*PYRAMID, mid_channels=4).double().eval().fusions[-1]
    (x,) = normal((2, 4, 6, 6))
    for size in [(6, 6), (3, 3), (2, 6), (12, 12)]:
        out, passed_on = fusion(x, None, size)
        assert passed_on.shape == (2, 4, *size)
        assert out.shape == (2, 5, *size)
        torch.testing.assert_close(passed_on, nn.functional.interpolate(fusion.project(x), size, mode='nearest'))


@pytest.mark.parametrize('last', [0, 1])
def test_shallow_stages_see_deeper_ones_and_not_the_other_way_round(last):
    shapes = [(2, 2, 4, 4), (2, 3, 2, 2)], [(2, 2, 4, 4), (2, 3, 2, 2)]
    student, teacher = taps(*shapes)
    loss = built(*shapes).double().eval()

    def outputs(maps: Sequence[Tensor]) -> list[Tensor]:
        residual, found = None, list[Tensor]()
        for fusion, tap, target in zip(reversed(loss.fusions), reversed(maps), reversed(teacher), strict=True):
            out, residual = fusion(tap, residual, target.shape[2:])
            found.insert(0, out)
        return found

    changed = [tap + 1 if i == last else tap for i, tap in enumerate(student)]
    moved = [bool((a != b).any()) for a, b in zip(outputs(student), outputs(changed), strict=True)]
    assert moved == ([True, False] if last == 0 else [True, True])
    value = sum(hcl_loss(out, target) for out, target in zip(outputs(student), teacher, strict=True))
    torch.testing.assert_close(loss(student, teacher), value)


def test_a_vector_is_a_map_of_one_place():
    (*maps, vector), (*targets, target) = taps(*PYRAMID)
    as_maps: tuple[Shapes, Shapes] = ([*PYRAMID[0][:-1], (3, 4, 1, 1)], [*PYRAMID[1][:-1], (3, 5, 1, 1)])
    expected = built(*PYRAMID).double()([*maps, vector], [*targets, target])
    assert built(*as_maps).double()([*maps, as_map(vector)], [*targets, as_map(target)]) == expected
    assert built(as_maps[0], PYRAMID[1]).double()([*maps, as_map(vector)], [*targets, target]) == expected


def test_defaults():
    assert ReviewKDLoss.relates_layers
    assert repr(ReviewKDLoss()) == repr(ReviewKDLoss(mid_channels=None, loss_weight=1.0))


@pytest.mark.parametrize(('students', 'teachers'), [(2, 3), (3, 2), (1, 3)])
def test_lists_of_other_lengths_are_refused(students, teachers):
    with pytest.raises(ValueError, match='expected') as error:
        built(PYRAMID[0][-students:], PYRAMID[1][-teachers:])
    for shapes in (PYRAMID[0][-students:], PYRAMID[1][-teachers:]):
        assert str([tuple(shape) for shape in shapes]) in str(error.value)


@pytest.mark.parametrize(('students', 'teachers'), [(2, 3), (3, 2), (2, 2)])
def test_forward_refuses_other_lengths(students, teachers):
    student, teacher = taps(*PYRAMID)
    with pytest.raises(ValueError):
        built(*PYRAMID).double()(student[:students], teacher[:teachers])
