"""AT: the formula in both forms, hand values, and what attention does not see."""

from math import sqrt

import pytest
import torch

from mmkd_plugin.losses import ATLoss, at_loss

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal

SHAPES = [
    ((1, 1, 2, 2), (1, 1, 2, 2)),
    ((2, 3, 3, 4), (2, 2, 3, 4)),
    ((3, 4, 1, 3), (3, 4, 1, 3)),
    ((2, 2, 4, 4), (2, 3, 2, 2)),
    ((2, 3, 2, 3), (2, 2, 5, 4)),  # places of the pooled map overlap
    ((1, 2, 4, 2), (1, 3, 2, 3)),  # higher and narrower
]
PAIR = SHAPES[1]
POWERS = [1, 1.5, 2, 3, 4.0]

both_forms = pytest.mark.parametrize('squared', [True, False])
powers = pytest.mark.parametrize('p', POWERS)


@both_forms
@powers
@pytest.mark.parametrize('shapes', SHAPES)
def test_value_and_gradient_are_those_of_the_formula(shapes, p, squared):
    student, teacher = normal(*shapes)
    value, gradient = value_and_gradient(at_loss, student, teacher, p, squared)
    constants = (teacher.tolist(), p, squared)
    assert value.item() == pytest.approx(naive.at(student.tolist(), *constants).real, rel=1e-9)
    expected = naive.gradient(lambda x: naive.at(x, *constants), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ATLoss(p, squared, loss_weight=0.7)(student, teacher), 0.7 * value)
    # ‖q_s − q_t‖² lies in [0, 2]
    rows, columns = (min(pair) for pair in zip(shapes[0][2:], shapes[1][2:], strict=True))
    assert 0 < value <= (2 / (rows * columns) if squared else sqrt(2) / 2)


@both_forms
@powers
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
@pytest.mark.parametrize('dead', ['places', 'student', 'teacher', 'both'])
def test_dead_maps_have_no_attention(dead, dtype, p, squared):
    student, teacher = (maps.to(dtype) for maps in normal(*PAIR))
    if dead == 'places':
        student, teacher = student.relu(), teacher.relu()
    if dead in ('student', 'both'):
        student[1] = 0
    if dead in ('teacher', 'both'):
        teacher[1] = 0
    value, gradient = value_and_gradient(at_loss, student, teacher, p, squared)
    assert gradient.isfinite().all()
    assert value.item() == pytest.approx(naive.at(student.tolist(), teacher.tolist(), p, squared).real, rel=1e-4)


@pytest.mark.parametrize(
    ('p', 'squared', 'expected'),
    [
        # Q_s = [3, 4], q_s = [0.6, 0.8]; Q_t = [1, 0]: squares 0.16 and 0.64
        (1, True, (0.16 + 0.64) / 2),
        (1, False, sqrt(0.8) / 2),
        # Q_s = [5, 8], two channels' squares; |q_s − q_t|² = 2 − 2 · 5 / √89
        (2, True, 1 - 5 / sqrt(89)),
        (2, False, sqrt(2 - 10 / sqrt(89)) / 2),
        # Q_s = [9, 16]
        (3, True, 1 - 9 / sqrt(337)),
    ],
)
def test_hand_values(p, squared, expected):
    # places [1, 2, ...]: channels [−2, 2] and [1, −2] have |F| summing to [3, 4], F² to [5, 8], |F|³ to [9, 16]
    student = torch.tensor([[[[-2.0, 2.0]], [[1.0, -2.0]]]]).double()
    teacher = torch.tensor([[[[-0.1, 0.0]]]]).double()
    assert at_loss(student, teacher, p, squared).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('size', [(1, 2), (2, 2), (3, 4)])
def test_hand_values_of_disjoint_supports(size):
    student, teacher = torch.zeros(3, 2, *size).double(), torch.zeros(3, 1, *size).double()
    student[:, :, 0, 0], teacher[:, :, 0, 1] = 0.7, -20.0
    for p in POWERS:
        assert at_loss(student, teacher, p).item() == pytest.approx(2 / (size[0] * size[1]), rel=1e-12)
        assert at_loss(student, teacher, p, squared=False).item() == pytest.approx(sqrt(2) / 2, rel=1e-12)


def test_one_form_from_the_other():
    student, teacher = normal((1, 3, 3, 4), (1, 2, 3, 4))
    norm = 2 * at_loss(student, teacher, squared=False)
    torch.testing.assert_close(at_loss(student, teacher), norm.square() / 12)


@both_forms
@powers
def test_scale_sign_and_order_of_channels_are_free(p, squared):
    student, teacher = normal(*PAIR)
    value = at_loss(student, teacher, p, squared)
    signs = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    per_image = torch.tensor([0.01, 300.0]).double()[:, None, None, None]
    for same in (
        student * 7, student * per_image, -student, student * signs, student.flip(1), student.repeat(1, 2, 1, 1)
    ):  # fmt: skip
        torch.testing.assert_close(at_loss(same, teacher, p, squared), value)
    torch.testing.assert_close(at_loss(student, -0.2 * teacher.flip(1), p, squared), value)
    # the scale of one channel is its share of the attention
    assert (at_loss(student * torch.tensor([1.0, 9, 1])[:, None, None], teacher, p, squared) - value).abs() > 1e-4


@both_forms
def test_order_of_places_is_free(squared):
    student, teacher = normal(*PAIR)
    value = at_loss(student, teacher, 2, squared)
    for dimension in (2, 3):
        torch.testing.assert_close(at_loss(student.flip(dimension), teacher.flip(dimension), 2, squared), value)
    assert (at_loss(student.flip(3), teacher, 2, squared) - value).abs() > 1e-3


def test_maps_are_pooled_before_attention():
    student, teacher = torch.tensor([[[[1.0, -1.0, 2.0, 2.0]]]]), torch.tensor([[[[0.0, 3.0]]]])
    # pooled: [0, 2], the teacher's attention; attention pooled would be [1, 4]
    assert at_loss(student, teacher) == 0


@both_forms
@powers
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_zero_and_flat_at_equal_attention(dtype, p, squared):
    teacher = normal(PAIR[0])[0].to(dtype)
    value, gradient = value_and_gradient(at_loss, teacher, teacher, p, squared)
    assert value == 0
    assert (gradient == 0).all()
    value, gradient = value_and_gradient(at_loss, -4 * teacher.flip(1), teacher, p, squared)
    assert value <= 1e-6
    assert gradient.isfinite().all()


def test_one_image_at_equality_leaves_the_others_their_gradient():
    student, teacher = normal((2, 3, 3, 4), (2, 3, 3, 4))
    student[0] = teacher[0]
    value, gradient = value_and_gradient(at_loss, student, teacher, 2, False)
    assert (gradient[0] == 0).all()
    alone, expected = value_and_gradient(at_loss, student[1:], teacher[1:], 2, False)
    torch.testing.assert_close(value, alone / 2)
    torch.testing.assert_close(gradient[1:], expected / 2)


def test_defaults():
    student, teacher = normal(*PAIR)
    expected = at_loss(student, teacher, p=2, squared=True)
    assert at_loss(student, teacher) == expected
    torch.testing.assert_close(ATLoss()(student, teacher), 1000 * expected)


@pytest.mark.parametrize('p', [0, 0.99, -1.0, float('nan'), float('inf')])
def test_wrong_power_is_refused(p):
    student, teacher = normal(*PAIR)
    for call in (lambda: ATLoss(p=p), lambda: at_loss(student, teacher, p)):
        with pytest.raises(ValueError, match=f'p={p!r}'):
            call()
