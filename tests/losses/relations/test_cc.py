"""CC: the formulas of both forms, hand values, and the series against the kernel."""

import functools
from math import exp

import pytest
import torch

from mmkd_plugin.losses import CCLoss, cc_embedded_loss, cc_loss
from mmkd_plugin.losses.relations.cc import correlation

from ..conftest import value_and_gradient
from ..naive_features import gradient, normal
from . import naive_samples as naive


@pytest.mark.parametrize('shapes', [((2, 3), (2, 5)), ((5, 4), (5, 4)), ((1, 3), (1, 2))])
@pytest.mark.parametrize(('gamma', 'order'), [(0.4, 2), (0.4, 1), (1.5, 5)])
def test_value_and_gradient_are_those_of_the_formula(shapes, gamma, order):
    student, teacher = normal(*shapes)
    value, slope = value_and_gradient(cc_loss, student, teacher, gamma, order)
    constants = (teacher.tolist(), gamma, order)
    assert value.item() == pytest.approx(naive.cc(student.tolist(), *constants).real, rel=1e-9, abs=1e-14)
    expected = gradient(lambda x: naive.cc(x, *constants), student)
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-13)


def test_correlations_of_a_sample_with_itself_and_of_samples_at_right_angles():
    matrix = correlation(torch.tensor([[2.0, 0.0], [0.0, 5.0]], dtype=torch.float64))
    assert matrix.diagonal().tolist() == pytest.approx([0.9525774, 0.9525774], abs=1e-7)
    assert matrix[0, 1].item() == pytest.approx(exp(-0.8))
    same = torch.ones(2, 3, dtype=torch.float64)
    value = cc_loss(same, torch.eye(2)).item()
    assert value == pytest.approx(2 * (0.9525774 - exp(-0.8)) ** 2 / 4, abs=1e-7)
    assert CCLoss()(same, torch.eye(2)).item() == pytest.approx(0.003 * value)
    # opposite ones: exp(-0.8) (1 - 0.8 + 0.32)
    assert correlation(torch.tensor([[1.0], [-3.0]]))[0, 1].item() == pytest.approx(0.52 * exp(-0.8))


@pytest.mark.parametrize('gamma', [0.1, 0.4, 2.0])
def test_a_long_series_is_the_gaussian_kernel(gamma):
    (vectors,) = normal((6, 4))
    unit = torch.nn.functional.normalize(vectors)
    expected = (-gamma * (unit[:, None] - unit).square().sum(2)).exp()
    torch.testing.assert_close(correlation(vectors, gamma, order=40), expected)
    errors = [(correlation(vectors, gamma, order) - expected).abs().max().item() for order in (1, 3, 5, 9)]
    assert errors == sorted(errors, reverse=True)


def test_zero_where_cosines_agree():
    student, teacher = normal((6, 4), (6, 5))
    scales = 10 ** torch.linspace(-3, 3, 6, dtype=torch.float64)[:, None]
    rotation = torch.linalg.qr(normal((4, 4), seed=1)[0]).Q
    assert cc_loss(scales * student @ rotation, student).abs() <= 1e-14
    torch.testing.assert_close(cc_loss(scales * student, teacher), cc_loss(student, scales * teacher))
    assert cc_loss(torch.ones(6, 4), torch.full((6, 2), 7.0)).abs() <= 1e-12


def test_maps_are_averaged_and_zero_vectors_are_at_right_angles_to_all():
    student, teacher = normal((4, 3, 2, 5), (4, 6))
    student[2] = 0
    value, slope = value_and_gradient(cc_loss, student, teacher)
    assert value.item() == pytest.approx(naive.cc(naive.averaged(student.tolist()), teacher.tolist(), 0.4, 2).real)
    assert slope[0].any()
    assert not slope[2].any()


def test_embedded_value_and_gradient_are_those_of_the_formula():
    student, teacher = normal((5, 3, 2, 2), (5, 4))
    loss = CCLoss('embedded', embed_dim=6, loss_weight=0.02).double()
    loss.build_connectors(student.shape, teacher.shape)
    loss.double()
    sides = {'student': naive.averaged(student.tolist()), 'teacher': teacher.tolist()}

    def expected(student=sides['student'], **weights):
        state = {name: value.tolist() for name, value in loss.state_dict().items()} | weights
        sides['student'] = student
        both = [
            naive.embedded(batch, state[f'embed_{side}.weight'], state[f'embed_{side}.bias'])
            for side, batch in sides.items()
        ]
        return 0.02 * naive.cc_embedded(*both)

    def weighted(name, weight):
        return expected(naive.averaged(student.tolist()), **{name: weight})

    value, slope = value_and_gradient(loss, student, teacher)
    assert value.item() == pytest.approx(expected().real)
    torch.testing.assert_close(slope, gradient(lambda x: expected(naive.averaged(x)), student))
    loss(student, teacher).backward()
    for name, parameter in loss.named_parameters():
        wanted = functools.partial(weighted, name)
        torch.testing.assert_close(parameter.grad, gradient(wanted, parameter.data))


def test_embedded_hand_values():
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 1.0]])
    zeros = torch.zeros(3, 2)
    # |d|: (1, 0), (0, 2), (3, 1): products 0 and 2, mean 1
    assert cc_embedded_loss(student, zeros) == cc_embedded_loss(zeros, student) == 1
    # zero where every second sample is right, whatever the others are
    right = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    teacher = torch.randn(4, 3)
    assert cc_embedded_loss(teacher + 100 * right, teacher) == 0
    for count in (0, 1):
        value, slope = value_and_gradient(cc_embedded_loss, student[:count], zeros[:count])
        assert value == 0
        assert not slope.any()


def test_both_embeddings_learn_and_the_teacher_does_not():
    loss = CCLoss('embedded')
    student, teacher = torch.randn(4, 3, requires_grad=True), torch.randn(4, 6, 2, 2, requires_grad=True)
    loss.build_connectors(student.shape, teacher.shape)
    assert [p.shape for p in loss.parameters()] == [(128, 3), (128,), (128, 6), (128,)]
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert all(p.grad is not None and p.grad.any() for p in loss.parameters())
    kernel = CCLoss()
    kernel.build_connectors(student.shape, teacher.shape)
    assert not list(kernel.parameters())


def test_what_is_unknown_is_refused():
    with pytest.raises(ValueError, match="form='rbf' given, expected 'kernel' or 'embedded'"):
        CCLoss('rbf')  # type: ignore[arg-type]
    for arguments in ({'gamma': 0.0}, {'order': 0}, {'order': 2.0}):
        with pytest.raises(ValueError, match='given, expected'):
            CCLoss(**arguments)
        with pytest.raises(ValueError, match='given, expected'):
            cc_loss(torch.zeros(2, 3), torch.zeros(2, 3), **arguments)
    with pytest.raises(ValueError, match='embed_dim=0 given'):
        CCLoss(embed_dim=0)
    with pytest.raises(ValueError, match=r'\(4, 3\) and teacher \(4, 2, 2\) given, expected vectors'):
        CCLoss('embedded').build_connectors((4, 3), (4, 2, 2))
    with pytest.raises(ValueError, match=r'\(4, 3\) and teacher \(4, 2\) given, expected two embeddings'):
        cc_embedded_loss(torch.zeros(4, 3), torch.zeros(4, 2))
