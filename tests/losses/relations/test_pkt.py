"""PKT: the formula, hand values, and what it does not see of the vectors."""

from math import log

import pytest
import torch

from mmkd_plugin.losses import PKTLoss, pkt_loss

from ..conftest import value_and_gradient
from ..naive_features import gradient, normal
from . import naive_samples as naive

SAME = torch.ones(2, 3, dtype=torch.float64)
RIGHT_ANGLE = torch.eye(2, dtype=torch.float64)


@pytest.mark.parametrize('shapes', [((2, 3), (2, 5)), ((5, 4), (5, 4)), ((7, 2), (7, 9)), ((1, 3), (1, 2))])
def test_value_and_gradient_are_those_of_the_formula(shapes):
    student, teacher = normal(*shapes)
    value, slope = value_and_gradient(pkt_loss, student, teacher)
    assert value.item() == pytest.approx(naive.pkt(student.tolist(), teacher.tolist()).real, rel=1e-9, abs=1e-14)
    expected = gradient(lambda x: naive.pkt(x, teacher.tolist()), student)
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-13)


def test_maps_are_averaged_and_may_meet_vectors():
    student, teacher, vectors = normal((4, 3, 2, 5), (4, 2, 3, 3), (4, 6))
    value, slope = value_and_gradient(pkt_loss, student, teacher)
    constants = naive.averaged(teacher.tolist())
    expected = gradient(lambda x: naive.pkt(naive.averaged(x), constants), student)
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-13)
    torch.testing.assert_close(value, pkt_loss(student.mean((2, 3)), teacher.mean((2, 3))))
    torch.testing.assert_close(pkt_loss(student, vectors), pkt_loss(student.mean((2, 3)), vectors))
    torch.testing.assert_close(pkt_loss(vectors, teacher), pkt_loss(vectors, teacher.mean((2, 3))))


def test_hand_values():
    # rows of p: teacher (2/3, 1/3), student (1/2, 1/2)
    row = 2 / 3 * log(4 / 3) + 1 / 3 * log(2 / 3)
    assert row == pytest.approx(0.0566330, abs=1e-7)
    value = pkt_loss(SAME, RIGHT_ANGLE).item()
    assert value == pytest.approx(0.0283165, abs=1e-7)
    assert value == pytest.approx(2 * row / 4, abs=1e-6)
    # the other way round: KL of (1/2, 1/2) and (2/3, 1/3)
    assert pkt_loss(RIGHT_ANGLE, SAME).item() == pytest.approx((log(3 / 4) + log(3 / 2)) / 4, abs=1e-6)
    assert PKTLoss()(SAME, RIGHT_ANGLE).item() == pytest.approx(30000 * value)


def test_opposite_samples():
    """The cosine -1 makes a probability of 0: rows (1, 0), where eps keeps the logarithm."""
    opposite = torch.tensor([[1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64)
    assert pkt_loss(SAME, opposite).item() == pytest.approx(log(2) / 2, abs=1e-6)
    value, slope = value_and_gradient(pkt_loss, opposite, SAME)
    assert value.item() == pytest.approx((log(0.5) + log(0.5 / 1e-7)) / 4, abs=1e-6)
    assert slope.abs().max() < 1e-6
    for dtype in (torch.float32, torch.float16):
        value, slope = value_and_gradient(pkt_loss, opposite.to(dtype), SAME)
        assert value.isfinite()
        assert slope.isfinite().all()


def test_scale_of_each_sample_and_rotation_are_free():
    student, teacher = normal((6, 4), (6, 5))
    scales = 10 ** torch.linspace(-3, 3, 6, dtype=torch.float64)[:, None]
    rotation = torch.linalg.qr(normal((4, 4), seed=1)[0]).Q
    value = pkt_loss(student, teacher)
    torch.testing.assert_close(pkt_loss(scales * student, scales.flip(0) * teacher), value)
    torch.testing.assert_close(pkt_loss(student @ rotation, teacher), value)
    wider = torch.cat([student, torch.zeros(6, 3)], 1)
    assert pkt_loss(scales * wider, student).abs() <= 1e-14


def test_zero_vectors_are_at_right_angles_to_all():
    """Rows (K = 1/2 each) are uniform, and give no gradient."""
    student, teacher = normal((3, 4), (3, 4))
    student[1] = 0
    value, slope = value_and_gradient(pkt_loss, student, teacher)
    assert value.item() == pytest.approx(naive.pkt(student.tolist(), teacher.tolist()).real, rel=1e-9)
    assert not slope[1].any()
    assert slope[0].any()
    zeros = torch.zeros(3, 4, dtype=torch.float64)
    assert pkt_loss(zeros, torch.ones_like(zeros)).abs() <= 1e-14  # all the same
    assert pkt_loss(zeros, teacher) > 0.001


@pytest.mark.parametrize('other', [(4,), (3, 2), (4, 2, 3), (4, 2, 3, 3, 1)])
def test_other_shapes_are_refused(other):
    for shapes in (((4, 3), other), (other, (4, 3))):
        with pytest.raises(ValueError, match='expected vectors') as error:
            pkt_loss(*(torch.zeros(shape) for shape in shapes))
        assert all(str(shape) in str(error.value) for shape in shapes)
