"""FT: paraphraser and translator against their formulas, hand values, and that the paraphraser is used as it is."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from mmkd_plugin.losses import FTLoss, ParaphraserLoss, ft_loss, paraphraser_loss
from mmkd_plugin.losses.norms import ConnectorNorm2d

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal
from . import naive_stages

FACTORS = ['vector', 'attention']
DISTANCES = ['l2', 'l1']
SIZES = [
    ((2, 3, 2, 3), (2, 3, 2, 3)),
    ((1, 1, 1, 1), (1, 1, 1, 1)),
    ((2, 3, 4, 4), (2, 3, 2, 2)),
    ((2, 3, 2, 3), (2, 3, 5, 4)),  # places of the pooled map overlap
    ((1, 2, 4, 2), (1, 2, 2, 3)),  # higher and narrower
]


def built(student: tuple[int, ...], teacher: tuple[int, ...], rate: float = 0.5, **arguments: Any) -> FTLoss:
    torch.manual_seed(0)
    paraphraser = ParaphraserLoss(rate=rate)
    paraphraser.build_connectors(teacher)
    loss = FTLoss(**arguments)
    loss.take('paraphraser', paraphraser)
    loss.build_connectors(student, teacher)
    paraphraser.double()
    return loss.double()


def kinds(layers: nn.Module) -> list[type[nn.Module]]:
    return [type(layer) for layer in layers.children()]


@pytest.mark.parametrize('factor', FACTORS)
@pytest.mark.parametrize('shapes', SIZES)
def test_value_and_gradient_are_those_of_the_formula(shapes, factor):
    student, teacher = normal(*shapes)
    value, gradient = value_and_gradient(ft_loss, student, teacher, factor)
    expected = naive_stages.ft(student.tolist(), teacher.tolist(), factor)
    assert value.item() == pytest.approx(expected.real, rel=1e-9, abs=1e-15)
    slopes = naive.gradient(lambda x: naive_stages.ft(x, teacher.tolist(), factor), student)
    torch.testing.assert_close(gradient, slopes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('factor', FACTORS)
def test_class_is_the_formula_after_translator_and_paraphraser(factor):
    student, teacher = normal((2, 2, 3, 2), (2, 4, 3, 2))
    loss = built((2, 2, 3, 2), (2, 4, 3, 2), factor=factor, loss_weight=0.7)
    target = naive_stages.three(
        teacher.tolist(), {k: v.tolist() for k, v in loss.used('paraphraser').state_dict().items()}, 'encoder'
    )
    tensors = {'student': student.requires_grad_(), **dict(loss.named_parameters())}
    lists = {name: tensor.tolist() for name, tensor in tensors.items()}

    def formula(name: str, changed: Any) -> complex:
        values = lists | {name: changed}
        return 0.7 * naive_stages.ft(naive_stages.three(values['student'], values, 'translator'), target, factor)

    check(loss(student, teacher), tensors, formula)


@pytest.mark.parametrize('distance', DISTANCES)
def test_paraphraser_is_the_formula(distance):
    loss = ParaphraserLoss(distance=distance, loss_weight=3.0)
    torch.manual_seed(0)
    loss.build_connectors((2, 4, 3, 2))
    loss.double()
    (teacher,) = normal((2, 4, 3, 2))
    lists = {name: tensor.tolist() for name, tensor in loss.named_parameters()}

    def formula(name: str, changed: Any) -> complex:
        return 3 * naive_stages.paraphraser(teacher.tolist(), lists | {name: changed}, distance)

    check(loss(teacher), dict(loss.named_parameters()), formula)


def check(value, tensors, formula):
    """A value, and along a direction the slope by each tensor."""
    name, tensor = next(iter(tensors.items()))
    assert value.item() == pytest.approx(formula(name, tensor.tolist()).real, rel=1e-9)
    for (name, tensor), gradient in zip(tensors.items(), torch.autograd.grad(value, [*tensors.values()]), strict=True):
        (direction,) = normal(tensor.shape, seed=1)
        expected = naive.slope(partial(formula, name), tensor.detach(), direction)
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-8, abs=1e-11), name


def test_hand_values():
    # orthogonal one-hot factors of D values differ by 1 in two of them
    for channels, height, width in ((4, 1, 1), (3, 2, 2), (1, 1, 2)):
        size = channels * height * width
        student, teacher = (torch.zeros(2, size).double() for _ in range(2))
        student[:, 0], teacher[:, -1] = 0.3, 7
        student, teacher = (x.view(2, channels, height, width) for x in (student, teacher))
        assert ft_loss(student, teacher).item() == pytest.approx(2 / size)
    # means of squares (1, 4) and (4, 1) over their length, of two places each
    one, two = torch.tensor([[[[1.0, 2.0]]]]).double(), torch.tensor([[[[2.0, -1.0]]]]).double()
    assert ft_loss(one, two, 'attention').item() == pytest.approx(3 / 17**0.5)
    assert ft_loss(one, two).item() == pytest.approx((1 + 3) / 5**0.5 / 2)
    # a constant difference d: d², and |d|
    (teacher,) = normal((2, 3, 4, 4))
    assert paraphraser_loss(teacher - 3, teacher).item() == pytest.approx(9)
    assert paraphraser_loss(teacher - 3, teacher, 'l1').item() == pytest.approx(3)


@pytest.mark.parametrize('factor', FACTORS)
def test_zero_for_proportional_factors(factor):
    (student,) = normal((3, 4, 2, 3))
    scale = torch.tensor([0.1, 3.0, 1e3], dtype=torch.float64)[:, None, None, None]
    for other in (student, student * scale):
        assert ft_loss(student, other, factor).abs() <= 1e-15
    # a factor's sign is free where squares are compared
    assert (ft_loss(student, -student, factor) > 0.01) == (factor == 'vector')


def test_order_of_channels_is_free_for_attention_only():
    student, teacher = normal((3, 4, 2, 3), (3, 4, 2, 3))
    torch.testing.assert_close(ft_loss(student.flip(1), teacher, 'attention'), ft_loss(student, teacher, 'attention'))
    assert (ft_loss(student.flip(1), teacher) - ft_loss(student, teacher)).abs() > 1e-3


def test_a_factor_of_nothing_has_no_slope():
    (teacher,) = normal((2, 3, 2, 2))
    for factor in FACTORS:
        value, gradient = value_and_gradient(ft_loss, torch.zeros_like(teacher), teacher, factor)
        assert value > 0
        assert (gradient == 0).all()


def test_layers():
    loss = built((2, 6, 8, 8), (2, 10, 4, 4), rate=0.33)
    paraphraser = loss.used('paraphraser')
    assert [p.shape[:2] for p in paraphraser.encoder.parameters() if p.ndim == 4] == [(10, 10), (3, 10), (3, 3)]
    assert [p.shape[:2] for p in paraphraser.decoder.parameters() if p.ndim == 4] == [(3, 3), (3, 10), (10, 10)]
    assert [p.shape[:2] for p in loss.translator.parameters() if p.ndim == 4] == [(6, 6), (3, 6), (3, 3)]
    assert kinds(paraphraser.encoder) == kinds(loss.translator) == [nn.Conv2d, nn.LeakyReLU] * 3
    assert kinds(paraphraser.decoder) == [nn.ConvTranspose2d, nn.LeakyReLU] * 3
    normed = built((2, 6, 8, 8), (2, 10, 4, 4), norm=True)
    assert kinds(normed.translator) == [nn.Conv2d, ConnectorNorm2d, nn.LeakyReLU] * 3
    few = built((2, 6, 8, 8), (2, 1, 4, 4))
    assert few.used('paraphraser').channels == 1  # not none


def test_no_gradient_reaches_paraphraser_or_teacher():
    student, teacher = normal((2, 3, 4, 4), (2, 4, 4, 4))
    loss = built((2, 3, 4, 4), (2, 4, 4, 4))
    loss(student.requires_grad_(), teacher.requires_grad_()).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert [p.grad for p in loss.used('paraphraser').parameters()] == [None] * 12
    assert all(p.grad is not None and p.grad.any() for p in loss.translator.parameters())
    assert len([*loss.parameters()]) == 6  # the paraphraser's are its own entry's


def test_defaults():
    assert repr(FTLoss()) == repr(FTLoss('loss_paraphraser', 'vector', norm=False, loss_weight=500))
    assert repr(ParaphraserLoss()) == repr(ParaphraserLoss(0.5, 'l2', loss_weight=1))
    student, teacher = normal((2, 3, 4, 4), (2, 3, 4, 4))
    assert ft_loss(student, teacher) == ft_loss(student, teacher, 'vector')
    assert paraphraser_loss(student, teacher) == paraphraser_loss(student, teacher, 'l2')


def test_mistakes():
    student, teacher = normal((2, 3, 4, 4), (2, 4, 4, 4))
    with pytest.raises(ValueError, match=r'\(2, 3, 4, 4\) and teacher \(2, 4, 4, 4\).*as many channels'):
        ft_loss(student, teacher)
    with pytest.raises(ValueError, match='equal shape'):
        paraphraser_loss(student, teacher)
    with pytest.raises(ValueError, match="factor='map' given, expected 'vector' or 'attention'"):
        ft_loss(student, student, 'map')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="distance='mse' given, expected 'l2' or 'l1'"):
        paraphraser_loss(student, student, 'mse')  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match='FTLoss uses a ParaphraserLoss'):
        FTLoss().build_connectors((2, 3, 4, 4), (2, 4, 4, 4))
