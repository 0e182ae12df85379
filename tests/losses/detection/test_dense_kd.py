"""KD of dense heads' scores: both formulas, the reference's hand values, which positions count, and refusals."""

from math import log
from typing import Any

import pytest
import torch

from mmkd_plugin.losses import DenseKDLoss, QFLKDLoss, qfl_kd_loss, sigmoid_kd_loss

from ..conftest import value_and_gradient
from ..naive_features import gradient, normal
from . import naive_heads as naive

SHAPES = [(2, 6, 3, 2), (2, 6, 1, 2)]  # two anchors of three classes
KINDS: list[tuple[Any, tuple[str, float], dict[str, Any]]] = [
    (DenseKDLoss, ('kd', 3.0), {'temperature': 3.0}),
    (QFLKDLoss, ('qfl', 2.0), {}),
    (QFLKDLoss, ('qfl', 1.0), {'beta': 1.0}),
]
kinds = pytest.mark.parametrize(('kind', 'formula', 'arguments'), KINDS)


def labels(together: bool = False) -> tuple[torch.Tensor, ...]:
    """Of all positions, 3 being background and -1 nobody's: level by level, or in one tensor as FCOS."""
    every = torch.randint(-1, 4, (2 * 8 * 2,), generator=torch.Generator().manual_seed(0))
    return (every,) if together else tuple(every.split([24, 8]))


@kinds
@pytest.mark.parametrize('positions', ['all', 'positive', 'confident'])
@pytest.mark.parametrize('normalizer', ['positives', 'confident'])
def test_value_and_gradient_are_those_of_the_formula(kind, formula, arguments, positions, normalizer):
    student, teacher = normal(*SHAPES), normal(*SHAPES, seed=1)
    loss = kind(positions=positions, normalizer=normalizer, threshold=0.6, loss_weight=0.7, **arguments)
    told = torch.cat(labels()).tolist()

    def formula_of(first):
        rows = naive.places([first, student[1].tolist()], 2), naive.places([t.tolist() for t in teacher], 2)
        return 0.7 * naive.scores(*rows, told, formula, positions, normalizer, 0.6)

    first = student[0].clone().requires_grad_()
    value = loss([first, student[1]], teacher, labels())
    assert value.item() == pytest.approx(formula_of(student[0].tolist()).real, rel=1e-9)
    assert value == loss([first, student[1]], teacher, labels(together=True))
    value.backward()
    torch.testing.assert_close(first.grad, gradient(formula_of, student[0]), rtol=1e-8, atol=1e-12)


def test_hand_values():
    """z_s = 0, q_t = 3/4."""
    teacher, student = torch.tensor([log(3)], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert sigmoid_kd_loss(student, teacher).item() == pytest.approx(0.1308120, abs=1e-7)
    assert qfl_kd_loss(student, teacher, 1.0).item() == pytest.approx(0.1732868, abs=1e-7)
    assert qfl_kd_loss(student, teacher, 2.0).item() == pytest.approx(0.0433217, abs=1e-7)


def test_gradient_is_the_difference_of_the_scores():
    student, teacher = normal((5, 3), (5, 3))
    sigmoid_kd_loss(student.requires_grad_(), teacher, 2.0).backward()
    torch.testing.assert_close(student.grad, 2.0 * ((student / 2).sigmoid() - (teacher / 2).sigmoid()).detach())


def test_saturated_scores():
    values = torch.tensor([-1e4, -30.0, 0.0, 30.0, 1e4])
    pairs = torch.cartesian_prod(values, values)
    for function in (sigmoid_kd_loss, qfl_kd_loss):
        slopes = [
            value_and_gradient(function, *pairs.to(dtype).unbind(1))[1] for dtype in (torch.float32, torch.float64)
        ]
        torch.testing.assert_close(slopes[0], slopes[1].float(), rtol=1e-4, atol=1e-6)
        assert function(values, values).item() == pytest.approx(0, abs=1e-6)


def test_a_shift_of_the_logits_counts():
    (logits,) = normal((5, 3))
    assert sigmoid_kd_loss(logits + 1, logits) > 0.1


@kinds
def test_without_positives_the_sum_stays(kind, formula, arguments):
    student, teacher = normal((1, 3, 2, 2), (1, 3, 2, 2))
    nobody = (torch.full((4,), 3),)
    everything = kind(**arguments)([student], [teacher], nobody)
    one = kind(**arguments)([student], [teacher], (torch.tensor([3, 1, 3, 3]),))
    assert everything == one > 0
    value = kind(positions='positive', **arguments)([student.requires_grad_()], [teacher], nobody)
    assert value == 0
    value.backward()
    assert not student.grad.any()


def test_refusals():
    maps = [torch.zeros(2, 6, 3, 2), torch.zeros(2, 6, 1, 2)]
    loss = DenseKDLoss()
    with pytest.raises(ValueError, match='given with 24 assignments, expected as many for each of their places'):
        loss(maps, maps, (torch.zeros(24, dtype=torch.int64),))
    for other, told in [
        ([maps[0]], 'other levels'),
        ([maps[0], torch.zeros(2, 6, 2, 2)], 'other heights'),
        ([torch.zeros(2, 6, 3, 3), maps[1]], 'other widths'),
        ([torch.zeros(2, 9, 3, 2), torch.zeros(2, 9, 1, 2)], 'other anchors times classes'),
    ]:
        with pytest.raises(ValueError, match=rf'{told}: student .* dense heads can be compared on one grid only'):
            loss.build_connectors([m.shape for m in maps], [m.shape for m in other])
    wrong: list[tuple[dict[str, Any], str]] = [
        ({'positions': 'some'}, "positions='some' given, expected 'all', 'positive' or 'confident'"),
        ({'normalizer': 'none'}, "normalizer='none' given, expected 'positives' or 'confident'"),
        ({'threshold': 1.5}, r'threshold=1\.5 given'),
    ]
    for arguments, told in wrong:
        with pytest.raises(ValueError, match=told):
            DenseKDLoss(**arguments)
    with pytest.raises(ValueError, match=r'beta=0\.5 given'):
        QFLKDLoss(beta=0.5)
    with pytest.raises(ValueError, match='expected logits of one shape'):
        sigmoid_kd_loss(torch.zeros(2, 3), torch.zeros(2, 1))
