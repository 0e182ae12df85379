"""IRG: edges, vertices and transformations against their formulas, hand values, and what they do not see."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmkd_plugin import distill
from mmkd_plugin.losses import IRGLoss, IRGTransformLoss, irg_loss, irg_transform_loss
from mmkd_plugin.losses.relations.irg import edges
from tests.conftest import batch

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal
from . import naive_pairs
from .test_rkd import moved

forms = pytest.mark.parametrize('form', ['caffe', 'mean'])
maxima = pytest.mark.parametrize('constant_max', [False, True])


@forms
@maxima
@pytest.mark.parametrize('vertex_weight', [0, 0.3])
@pytest.mark.parametrize('n', [2, 3, 5])
def test_value_and_gradient_are_those_of_the_formula(n, vertex_weight, form, constant_max):
    student, teacher = normal((n, 3), (n, 3 if vertex_weight else 4))
    value, gradient = value_and_gradient(irg_loss, student, teacher, vertex_weight, form, constant_max)
    constants = (teacher.tolist(), vertex_weight, form, constant_max)
    assert value.item() == pytest.approx(naive_pairs.irg(student.tolist(), *constants).real, rel=1e-9, abs=1e-13)
    expected = naive.gradient(lambda x: naive_pairs.irg(x, *constants), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@forms
@maxima
@pytest.mark.parametrize('which', range(4))
def test_transformations_are_those_of_the_formula(which, form, constant_max):
    """The gradient by each layer of two pairs, of other sizes."""
    student, teacher = normal((4, 3), (4, 3), (4, 2), (4, 2)), normal((4, 5), (4, 5), (4, 3), (4, 3), seed=1)

    def with_layer(layers: Any, layer: Any) -> Any:
        return [*layers[:which], layer, *layers[which + 1 :]]

    value, gradient = value_and_gradient(
        lambda layer: irg_transform_loss(with_layer(student, layer), teacher, form, constant_max), student[which]
    )
    of_student, of_teacher = ([layer.tolist() for layer in layers] for layers in (student, teacher))
    assert value.item() == pytest.approx(naive_pairs.irg_transform(of_student, of_teacher, form).real, rel=1e-9)
    expected = naive.gradient(
        lambda x: naive_pairs.irg_transform(with_layer(of_student, x), of_teacher, form, constant_max), student[which]
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_maps_are_averaged_over_their_positions():
    student, teacher = normal((4, 3, 2, 5), (4, 3, 3, 1)), normal((4, 6), (4, 6, 2, 2))
    pooled = [student[0].mean((2, 3)), student[1].mean((2, 3))], [teacher[0], teacher[1].mean((2, 3))]
    torch.testing.assert_close(irg_transform_loss(student, teacher), irg_transform_loss(*pooled))
    torch.testing.assert_close(irg_loss(student[0], teacher[1]), irg_loss(pooled[0][0], pooled[1][1]))


def test_hand_values_of_edges():
    # 0, 1, 2 against 0, 2, 1: two of three pairs exchange 1/4 and 1, each counted twice
    student, teacher = torch.tensor([[0.0], [1], [2]]).double(), torch.tensor([[0.0], [2], [1]]).double()
    assert irg_loss(student, teacher).item() == pytest.approx(4 * (3 / 4) ** 2 / (2 * 3))
    assert irg_loss(student, teacher, form='mean').item() == pytest.approx(4 * (3 / 4) ** 2 / 9)
    # vertices differ by 0, 1, 1
    assert irg_loss(student, teacher, 2.0).item() == pytest.approx(0.375 + 2 * 2 / (2 * 3))
    assert irg_loss(student, teacher, 2.0, 'mean').item() == pytest.approx(0.25 + 2 * 2 / 3)
    assert IRGLoss()(student, teacher).item() == pytest.approx(0.005 * 0.375)


def test_hand_values_of_transformations():
    # moves of 1, 2 against 2, 1; and the other pair moves alike
    still, near, far = (torch.tensor(x).double()[:, None] for x in ([0.0, 0], [1.0, 2], [7.0, 8]))
    student, teacher = [still, near, near, still], [far, far - near.flip(0), near, 5 * near]
    assert irg_transform_loss(student, teacher).item() == pytest.approx(2 * (3 / 4) ** 2 / (2 * 2))
    assert irg_transform_loss(student, teacher, 'mean').item() == pytest.approx((3 / 4) ** 2)
    assert IRGTransformLoss()(student, teacher).item() == pytest.approx(0.005 * 0.28125)


def test_edges_reach_from_zero_to_one():
    (vectors,) = normal((6, 4))
    of = edges(vectors)
    assert of.max() == 1
    assert of.diagonal().tolist() == [0] * 6
    assert (of == of.T).all()
    torch.testing.assert_close(edges(moved(vectors)), of)


@forms
def test_zero_and_flat_for_a_similar_figure(form):
    student, teacher = normal((6, 4), (6, 5))
    value = irg_loss(student, teacher, form=form)
    torch.testing.assert_close(irg_loss(moved(student), moved(teacher), form=form), value)
    for constant_max in (False, True):
        value, gradient = value_and_gradient(irg_loss, moved(teacher), teacher, 0.0, form, constant_max)
        assert value.abs() <= 1e-12
        assert gradient.abs().max() <= 1e-12


def test_gradient_along_the_scale():
    """The value does not see it; with the maximum as a constant the gradient does."""
    student, teacher = normal((5, 3), (5, 3))
    along = [
        float((value_and_gradient(irg_loss, student, teacher, 0.0, 'caffe', c)[1] * student).sum()) for c in (0, 1)
    ]
    assert abs(along[0]) < 1e-12
    assert abs(along[1]) > 1e-2


def test_forms_differ_by_half_the_batch_and_by_two():
    student, teacher = normal((6, 3), (6, 4), (6, 3), (6, 4))[:2], normal((6, 5), (6, 5), seed=2)
    torch.testing.assert_close(irg_loss(student[0], teacher[0]), 3 * irg_loss(student[0], teacher[0], form='mean'))
    layers = [student[0], 2 + student[0].flip(0)]
    torch.testing.assert_close(irg_transform_loss(layers, teacher), irg_transform_loss(layers, teacher, 'mean') / 2)


@maxima
def test_all_equal_samples_and_layers_have_no_relations(constant_max):
    (teacher,) = normal((4, 3))
    for student in (torch.full((4, 3), 0.1).double(), torch.zeros(4, 3).double()):
        value, gradient = value_and_gradient(irg_loss, student, teacher, 0.0, 'mean', constant_max)
        assert value.item() == pytest.approx(naive_pairs.irg(student.tolist(), teacher.tolist(), 0, 'mean').real)
        assert (gradient == 0).all()
        assert irg_loss(student, student + 1) == 0
        pair = [student, teacher]
        still = irg_transform_loss([student.requires_grad_(), student], pair, 'mean', constant_max)
        assert still.isfinite()
        assert torch.autograd.grad(still, student)[0].isfinite().all()
        assert irg_transform_loss([teacher, teacher], [student, student]) == 0


@forms
@pytest.mark.parametrize('n', [0, 1])
def test_one_sample_has_no_edges_and_moves_as_far_as_the_farthest(form, n):
    student, teacher = normal((n, 3), (n, 4), (n, 3), (n, 4)), normal((n, 3), (n, 4), (n, 3), (n, 4), seed=1)
    assert value_and_gradient(irg_loss, student[0], teacher[1], 0.0, form)[0] == 0
    assert irg_loss(student[0], teacher[0], 1.0, form) == ((student[0] - teacher[0]) ** 2).sum() / max(
        2 * n if form == 'caffe' else 3 * n, 1
    )
    pairs = [student[0], student[2]], [teacher[1], teacher[3]]
    assert irg_transform_loss(*pairs, form).abs() <= 1e-15


def test_not_a_number_stays_one():
    student, teacher = normal((4, 3), (4, 3))
    broken = student.clone()
    broken[1, 2] = float('nan')
    assert irg_loss(broken, teacher).isnan()
    assert irg_loss(student, broken).isnan()
    assert irg_transform_loss([student, broken], [student, teacher]).isnan()


def test_vertices_of_other_lengths_are_refused_and_logits_advised():
    student, teacher = normal((4, 3), (4, 5))
    assert IRGLoss()(student, teacher) > 0
    with pytest.raises(ValueError, match=r"regressor='identity', on='head.fc'") as error:
        IRGLoss(vertex_weight=0.1)(student, teacher)
    assert '(4, 3)' in str(error.value)
    assert '(4, 5)' in str(error.value)


@pytest.mark.parametrize('shapes', [((4,), (4,)), ((4, 3, 2), (4, 3)), ((4, 3), (3, 3)), ((4, 3), (1, 3))])
def test_what_is_no_vectors_of_the_same_samples_is_refused(shapes):
    student, teacher = normal(*shapes)
    for call in (lambda: IRGLoss()(student, teacher), lambda: IRGTransformLoss()([student] * 2, [teacher] * 2)):
        with pytest.raises(ValueError, match='expected vectors') as error:
            call()
        assert all(str(shape) in str(error.value) for shape in shapes)


@pytest.mark.parametrize(('of_student', 'of_teacher'), [(0, 0), (1, 1), (3, 3), (2, 4), (4, 2)])
def test_what_is_no_pairs_is_refused(of_student, of_teacher):
    (layer,) = normal((4, 3))
    with pytest.raises(ValueError, match=f'{of_student} layers of the student and {of_teacher} of the teacher'):
        irg_transform_loss([layer] * of_student, [layer] * of_teacher)


def test_pairs_of_other_channels_are_refused():
    wide, narrow = normal((4, 6), (4, 3))
    for student, teacher in (([wide, narrow], [wide, wide]), ([wide, wide], [wide, narrow])):
        with pytest.raises(ValueError, match=r'a pair of layers \(4, 6\) and \(4, 3\) given.*of one stage'):
            irg_transform_loss(student, teacher)
    with pytest.raises(ValueError, match=r'\(4, 6\) and \(1, 6\)'):  # which would broadcast
        irg_transform_loss([wide, wide[:1]], [wide, wide[:1]])


def test_one_teacher_layer_supervises_several_of_the_student(student, teacher):
    """``on`` repeats its path; each of the losses is that of its two layers."""
    layers = ['backbone.layer2', 'backbone.layer3', 'neck']
    on = {'student': layers, 'teacher': ['neck'] * 3}
    values: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(layer).register_forward_hook(
            lambda module, args, out, key=key: values.update({key: out[0] if isinstance(out, tuple) else out})
        )
        for network, paths in ((student, layers), (teacher, ['neck']))
        for layer in paths
        for key in [layer if network is student else 'taught']
    ]
    model = distill(student, {'loss_irg': {'type': 'IRGLoss', 'on': on, 'loss_weight': 1.0}}, teacher=teacher)
    found = model(**batch(), mode='loss')['loss_irg']
    for hook in hooks:
        hook.remove()
    expected = sum(irg_loss(values[layer], values['taught']) for layer in layers)
    torch.testing.assert_close(found, expected)
