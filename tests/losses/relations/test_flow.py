"""Information flow: the formula of both kernels, hand values, what vectors may differ in, weights over epochs."""

from math import log, sqrt

import pytest
import torch
from mmengine.config import Config

from mmkd_plugin.distillation.schedule import Schedule
from mmkd_plugin.facts import Progress
from mmkd_plugin.files.configs import config_path
from mmkd_plugin.losses import FlowLoss, flow_loss

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal
from .naive_flow import flow, jeffreys

SHAPES = [((2, 3), (2, 3)), ((5, 4), (5, 7)), ((6, 1), (6, 2))]


def alike(value, expected):
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('shapes', SHAPES)
@pytest.mark.parametrize('scale', [0.1, 3.0])
def test_value_and_gradient_are_those_of_the_formula(shapes, scale):
    student, teacher = (scale * vectors for vectors in normal(*shapes))
    value, gradient = value_and_gradient(flow_loss, student, teacher)
    assert value.item() == pytest.approx(flow(student.tolist(), teacher.tolist()).real, rel=1e-9)
    expected = naive.gradient(lambda x: flow(x, teacher.tolist()), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-11)


def test_maps_are_averaged_over_their_positions():
    student, teacher = normal((4, 3, 5, 2), (4, 2, 1, 7))
    alike(flow_loss(student, teacher), flow_loss(student.mean((2, 3)), teacher.mean((2, 3))))


def test_hand_value_of_the_divergence():
    assert jeffreys([0.75, 0.25], [0.5, 0.5]).real == pytest.approx(0.2746531, abs=1e-7)
    both_ways = 0.75 * log(1.5) + 0.25 * log(0.5) + 0.5 * log(0.5 / 0.75) + 0.5 * log(2)
    assert jeffreys([0.75, 0.25], [0.5, 0.5]).real == pytest.approx(both_ways, abs=1e-12)


def test_hand_value_of_the_loss():
    """Two samples that are alike to the student, and at right angles, the root of 2 apart, to the teacher."""
    student, teacher = torch.ones(2, 3).double(), torch.eye(2).double()
    cosine = jeffreys([0.5, 0.5], [2 / 3, 1 / 3]).real  # kernels 1 and 1/2
    own, other = 1 / (1 + 1e-3), 1 / (1 + sqrt(2 + 1e-6))
    distance = jeffreys([0.5, 0.5], [own / (own + other), other / (own + other)]).real
    # each of the N = 2 rows has the same, over N * N entries
    assert flow_loss(student, teacher).item() == pytest.approx((cosine + distance) / 2, rel=1e-5)


def test_student_and_teacher_count_alike_and_equal_ones_not_at_all():
    student, teacher = normal((5, 3), (5, 4))
    alike(flow_loss(student, teacher), flow_loss(teacher, student))
    value, gradient = value_and_gradient(flow_loss, student, student)
    assert value == 0
    assert gradient.abs().max() < 1e-12


def test_rotations_and_the_order_of_samples_are_free_and_scale_is_not():
    student, teacher = normal((5, 3), (5, 4))
    expected = flow_loss(student, teacher)
    turned = [vectors @ torch.linalg.qr(normal((n, n))[0])[0] for vectors, n in ((student, 3), (teacher, 4))]
    alike(flow_loss(*turned), expected)
    alike(flow_loss(student.flip(0), teacher.flip(0)), expected)
    assert (flow_loss(2 * student, teacher) - expected).abs() > 1e-4  # Student's kernel has a unit
    assert (flow_loss(student + 3, teacher) - expected).abs() > 1e-4  # and cosines have an origin


@pytest.mark.parametrize('student', ['opposite', 'same', 'dead', 'one dead', 'far'])
def test_finite_where_a_kernel_is_at_its_end(student):
    vectors = {
        'opposite': torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]),  # cos = -1 has no probability
        'same': torch.ones(3, 2),
        'dead': torch.zeros(3, 2),
        'one dead': torch.tensor([[1.0, 2.0], [0.0, 0.0], [2.0, 1.0]]),
        'far': 1e4 * torch.tensor([[1.0, 2.0], [-3.0, 0.0], [2.0, 1.0]]),
    }
    teacher = normal((3, 4))[0].float()
    for other in (teacher, vectors['opposite'], vectors['same'], vectors['dead']):
        value, gradient = value_and_gradient(flow_loss, vectors[student], other)
        assert value.isfinite()
        assert value >= 0
        assert gradient.isfinite().all()


def test_float32_holds_distances_of_vectors_far_from_the_origin():
    student, teacher = normal((8, 6), (8, 6))
    student = student + 100
    value = flow_loss(student.float(), teacher.float()).double()
    torch.testing.assert_close(value, flow_loss(student, teacher), rtol=1e-3, atol=1e-6)


def test_nothing_of_all_pairs_and_dimensions():
    student, teacher = normal((9, 50), (9, 60))
    sizes = []

    def seen(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        flow_loss(student.requires_grad_(), teacher)
    assert max(sizes) <= 9 * 50


def test_weights_over_epochs():
    """1 at the last layer, and 100, 70, 49 ... at the others, whatever the length of the run."""
    for length in (1, 40, 50):
        schedule = Schedule(decay=length, final=0.7**length, curve='exponential')
        weights = [100 * schedule.factor(Progress(epoch)) for epoch in range(min(length + 1, 3))]
        assert weights == pytest.approx([100, 70, 49][: len(weights)], abs=1e-12)
    losses = Config.fromfile(config_path('digits/flow_resnet.py')).model.losses
    assert FlowLoss().loss_weight == losses.loss_flow.loss_weight == 1
    schedule = Schedule(**losses.loss_flow_layers.schedule)
    weights = [losses.loss_flow_layers.loss_weight * schedule.factor(Progress(epoch)) for epoch in range(40)]
    assert weights == pytest.approx([100 * 0.7**epoch for epoch in range(40)], rel=1e-12)


def test_other_vectors_are_refused():
    student, teacher = normal((4, 3), (4, 3, 2))
    with pytest.raises(ValueError, match=r'\(4, 3, 2\) given, expected vectors \(N, D\) or feature maps'):
        flow_loss(student, teacher)
    with pytest.raises(ValueError, match="gather='yes' given, expected True or False"):
        FlowLoss(gather='yes')  # type: ignore[arg-type]
