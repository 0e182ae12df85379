"""The logits graph: the formula with each ground metric, hand values, exact transport, and weights of teachers."""

import numpy as np
import pytest
import torch

from mmkd_plugin.losses import LogitsGraphLoss, logits_graph_loss

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..naive_features import normal
from .naive_graph import logits_graph, softmax, total_variation

COSTS = [[0.0, 1.0, 0.25, 2.0], [1.0, 0.0, 0.5, 1.5], [0.25, 0.5, 0.0, 1.0], [2.0, 1.5, 1.0, 0.0]]
#: Where classes lie on a line, costs between them.
LINE = [[abs(i - j) / 3 for j in range(4)] for i in range(4)]
CERTAIN = torch.tensor([[100.0, -100.0]]).double()


def logits(count=3, n=3):
    student, *teachers = (2 * z for z in normal(*[(n, 4)] * (count + 1)))
    return student, teachers


def built(teachers, **arguments):
    loss = LogitsGraphLoss(**arguments)
    loss.build_connectors((2, 4), dict.fromkeys(teachers, (2, 4)))
    return loss


@pytest.mark.parametrize('cost', [None, COSTS, LINE])
@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_value_and_gradient_are_those_of_the_formula(cost, temperature):
    student, teachers = logits(2)
    weights = [0.25, 0.75]
    rest = (temperature, cost, 0.3, 7)
    matrix = None if cost is None else torch.tensor(cost, dtype=torch.float64)
    value, gradient = value_and_gradient(
        logits_graph_loss, student, teachers, torch.tensor(weights).double(), temperature, matrix, 0.3, 7
    )
    constants = ([t.tolist() for t in teachers], weights, *rest)
    assert value.item() == pytest.approx(logits_graph(student.tolist(), *constants).real, rel=1e-9)
    expected = naive.gradient(lambda x: logits_graph(x, *constants), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)


def test_hand_values():
    assert total_variation([1, 0], [0, 1]) == 1
    for cost in (None, torch.tensor([[0.0, 1.0], [1.0, 0.0]])):  # of the certain, entropy takes nothing
        value = logits_graph_loss(CERTAIN, [-CERTAIN], temperature=1.0, cost=cost)
        assert value.item() == pytest.approx(1, abs=1e-6)
    # (3/4, 1/4) to (1/2, 1/2)
    student, teacher = torch.zeros(1, 2).double(), torch.tensor([[3.0, 1.0]]).log().double()
    assert logits_graph_loss(student, [teacher], temperature=1.0).item() == pytest.approx(0.25, abs=1e-7)
    assert logits_graph_loss(student, [teacher, student], temperature=1.0).item() == pytest.approx(0.125, abs=1e-7)
    # certain ones, over the cost of that way
    for i in range(4):
        for j in range(4):
            z = 200.0 * torch.eye(4, dtype=torch.float64)
            value = logits_graph_loss(
                z[i : i + 1], [z[j : j + 1]], temperature=1.0, cost=torch.tensor(COSTS, dtype=torch.float64)
            )
            assert value.item() == pytest.approx(COSTS[i][j], abs=1e-6)


@pytest.mark.parametrize('cost', [None, torch.tensor(COSTS)])
def test_zero_and_flat_for_one_teacher_that_says_the_same(cost):
    student, _ = logits()
    value, gradient = value_and_gradient(logits_graph_loss, student, [student], None, 2.0, cost)
    assert abs(value.item()) < 1e-12
    assert gradient.abs().max() < 1e-12


def exact(p, q, cost):
    """The earth mover's distance as the linear programme that it is."""
    optimize = pytest.importorskip('scipy.optimize')
    n = len(p)
    leaving = np.kron(np.eye(n), np.ones(n))
    arriving = np.kron(np.ones(n), np.eye(n))
    found = optimize.linprog(np.ravel(cost), A_eq=np.vstack([leaving, arriving]), b_eq=np.concatenate([p, q]))
    return found.fun


@pytest.mark.parametrize('cost', [COSTS, LINE, (1 - np.eye(4)).tolist()])
def test_against_exact_transport(cost):
    """Total variation is it for equal costs; Sinkhorn comes near it as entropy counts less."""
    student, teachers = logits(1)
    p, q = ([[x.real for x in softmax(row, 1.0)] for row in z.tolist()] for z in (teachers[0], student))
    expected = np.mean([exact(a, b, cost) for a, b in zip(p, q, strict=True)])
    matrix = torch.tensor(cost, dtype=torch.float64)
    if cost not in (COSTS, LINE):
        assert logits_graph_loss(student, teachers, temperature=1.0).item() == pytest.approx(expected, abs=1e-9)
    far, near = (
        abs(logits_graph_loss(student, teachers, None, 1.0, matrix, epsilon, 500).item() - expected)
        for epsilon in (1.0, 0.05)
    )
    assert near < far / 3
    assert near < 0.04 * max(map(max, cost))


def test_what_lies_near_costs_less_where_costs_say_so():
    z = 10.0 * torch.eye(4, dtype=torch.float64)
    of_line = [logits_graph_loss(z[:1], [z[j : j + 1]], temperature=1.0, cost=torch.tensor(LINE)) for j in (1, 2, 3)]
    assert of_line[0] < of_line[1] < of_line[2]
    equal = [logits_graph_loss(z[:1], [z[j : j + 1]], temperature=1.0).item() for j in (1, 2, 3)]
    assert equal == pytest.approx([equal[0]] * 3)


@pytest.mark.parametrize(
    'arguments', [{}, {'weights': 'uniform', 'cost': COSTS}, {'weights': {'a': 1, 'b': 2, 'c': 0}}]
)
def test_teachers_may_be_named_in_any_order(arguments):
    student, teachers = logits()
    named = dict(zip('abc', teachers, strict=True))
    loss, other = built('abc', **arguments), built('cab', **arguments)
    torch.testing.assert_close(loss(student, named), other(student, named))
    torch.testing.assert_close(loss(student, dict(reversed(named.items()))), loss(student, named))


def test_weights():
    student, teachers = logits()
    named = dict(zip('abc', teachers, strict=True))
    alone = [16 * logits_graph_loss(student, [teacher]) for teacher in teachers]
    torch.testing.assert_close(built('abc')(student, named), sum(alone) / 3)
    given = built('abc', weights={'c': 3, 'a': 1, 'b': 0})  # taken in proportion
    torch.testing.assert_close(given(student, named), (alone[0] + 3 * alone[2]) / 4)
    learned = built('abc', weights='learned', loss_weight=1.0)
    (scores,) = learned.parameters()
    torch.testing.assert_close(16 * learned(student, named), sum(alone) / 3)  # alike at first
    optimizer = torch.optim.SGD([scores], lr=50.0)
    for _ in range(200):
        optimizer.zero_grad()
        learned(student, named).backward()
        optimizer.step()
    assert learned.shares().argmax() == torch.stack(alone).argmin()  # they go to the nearest


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'cost': 'euclidean'}, "cost='euclidean' given, expected 'zero_one' or a symmetric matrix"),
        ({'cost': [[0.0, 1.0], [2.0, 0.0]]}, 'symmetric matrix'),
        ({'cost': [[0.0, -1.0], [-1.0, 0.0]]}, '>= 0'),
        ({'cost': [[1.0, 1.0], [1.0, 0.0]]}, 'zeros in the diagonal'),
        ({'cost': [[0.0, 1.0]]}, 'symmetric matrix'),
        ({'cost': [[0.0, 1.0], [1.0]]}, 'symmetric matrix'),
        ({'epsilon': 0.01}, r'epsilon=0.01 given, expected a finite number >= 0.05'),
        ({'iterations': 0}, 'iterations=0 given, expected a whole number >= 1'),
        ({'weights': 'accuracy'}, "weights='accuracy' given, expected 'uniform', 'learned', or a number"),
        ({'weights': {'a': -1.0}}, 'a=-1.0 given, expected a finite number >= 0'),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        LogitsGraphLoss(**arguments)


def test_mistakes_that_show_with_teachers_and_classes():
    with pytest.raises(ValueError, match=r"expected one for each of the teachers \['a', 'b'\]"):
        built('ab', weights={'a': 1.0})
    with pytest.raises(ValueError, match=r'none of .* has one > 0'):
        built('ab', weights={'a': 0.0, 'b': 0.0})
    student, teachers = logits(1)
    with pytest.raises(ValueError, match=r'cost \(2, 2\) given, expected \(4, 4\)'):
        built('a', cost=[[0.0, 1.0], [1.0, 0.0]])(student, {'a': teachers[0]})
    with pytest.raises(ValueError, match='no teacher given'):
        logits_graph_loss(student, [])
