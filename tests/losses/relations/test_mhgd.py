"""MHGD: both stages by loops, hand values, bounds, what is frozen, and heads that are dropped."""

import copy
import math

import pytest
import torch

from mmkd_plugin.losses import MHGDHeadsLoss, MHGDLoss, mhgd_heads_loss, mhgd_loss
from tests.processes import ROOT, together

from ..naive_features import normal
from . import naive_mhgd as naive
from .test_fsp import refuses

SHAPES = [(4, 3, 3, 3), (4, 6, 2, 2), (4, 5, 2, 3)]


def heads_of(shapes, seed=0, **kwargs):
    """In float64, with statistics and parameters of batch norms that are not those at the start."""
    torch.manual_seed(seed)
    loss = MHGDHeadsLoss(**{'heads': 3, 'head_drop': 0.0, **kwargs})
    loss.build_connectors(shapes)
    for name, tensor in [*loss.named_parameters(), *loss.named_buffers()]:
        if '.norm.' in name and tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) + 0.5
    return loss.double()


def mhgd_of(shapes, **kwargs):
    loss = MHGDLoss(**kwargs)
    loss.take('heads', heads_of(shapes))
    return loss


@pytest.mark.parametrize('shapes', [SHAPES, SHAPES[:2], [(2, 2, 1, 1), (2, 3, 4, 4)]])
@pytest.mark.parametrize('training', [True, False])
def test_heads_are_those_of_the_formula(shapes, training):
    loss, teacher = heads_of(shapes).train(training), normal(*shapes)
    expected = naive.heads_loss(teacher, loss.pairs, stored=not training)
    value = loss(teacher)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
    gradients = (torch.autograd.grad(v, [*loss.parameters()]) for v in (value, expected))
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('shapes', [SHAPES, SHAPES[:2]])
def test_value_and_gradient_are_those_of_the_formula(shapes, training):
    """Whose sum over the samples is the batch size times the mean; heads are frozen in either mode."""
    loss = mhgd_of(shapes, loss_weight=4.0)
    loss.used('heads').train(training)
    student, teacher = normal(*shapes), normal(*shapes, seed=1)
    for layer in student:
        layer.requires_grad_()
    values = loss(student, teacher), naive.mhgd(student, teacher, loss.used('heads').pairs)
    torch.testing.assert_close(*values, rtol=1e-9, atol=0)
    gradients = (torch.autograd.grad(value, student) for value in values)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)  # the broadening of differences


def test_hand_values():
    far = torch.tensor([[[50.0, -50.0], [50.0, -50.0]]], dtype=torch.float64)
    assert mhgd_loss(far, -far).item() == pytest.approx(naive.FARTHEST_OF_TWO)
    assert mhgd_loss(torch.cat([far, far]), torch.cat([-far, far])).item() == pytest.approx(naive.FARTHEST_OF_TWO)
    # of one row only: half of it
    one = far.clone()
    one[0, 1] *= -1
    assert mhgd_loss(far, one).item() == pytest.approx(naive.FARTHEST_OF_TWO / 2)
    # student first: of (p, 1 − p) with p = 1 / (1 + e^−tanh(1)), and (1/2, 1/2)
    some, p = torch.tensor([[[1.0, 0.0]] * 2], dtype=torch.float64), 1 / (1 + math.exp(-math.tanh(1)))
    forward = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    assert mhgd_loss(some, 0 * some).item() == pytest.approx(forward)
    assert mhgd_loss(0 * some, some).item() == pytest.approx(-(math.log(2 * p) + math.log(2 * (1 - p))) / 2)
    vectors = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert mhgd_heads_loss(2 * vectors, vectors) == 0
    assert mhgd_heads_loss(-vectors, vectors) == 2
    assert mhgd_heads_loss(torch.tensor([[1.0, 0.0], [0.0, 7.0]]), vectors).item() == pytest.approx((0.4 + 1) / 2)
    assert mhgd_heads_loss(0 * vectors, vectors) == 1


@pytest.mark.parametrize('size', [1, 2, 5, 64])
def test_bounds(size):
    """Softmax of what lies in [−1, 1] is at least e^−2 / N, and a row's divergence at most 2."""
    torch.manual_seed(0)
    scores = 1e4 * torch.randn(2, 3, size, size, dtype=torch.float64)
    assert (scores.tanh().softmax(-1) >= math.exp(-2) / size * (1 - 1e-9)).all()
    for row in range(size):
        other = scores[1].clone()
        other[:, row] = scores[0, :, row]
        assert 0 <= (mhgd_loss(scores[1], scores[0]) - mhgd_loss(other, scores[0])) * size <= 2 * 3
    assert mhgd_loss(scores[0], scores[0]) == 0


def test_signs_scales_and_places_change_nothing_and_the_same_network_has_none():
    loss, student, teacher = mhgd_of(SHAPES), normal(*SHAPES), normal(*SHAPES, seed=1)
    value = loss(student, teacher)
    changed = [7.0 * student[0], -student[1].flip(2), student[2].flip(3)]
    torch.testing.assert_close(loss(changed, teacher), value)
    torch.testing.assert_close(loss(student, [-teacher[0], 0.1 * teacher[1], teacher[2]]), value)
    assert loss(changed, student).abs() < 1e-15


def test_the_heads_stay_as_they_are_in_the_second_stage():
    loss, student, teacher = mhgd_of(SHAPES), normal(*SHAPES), normal(*SHAPES, seed=1)
    heads = loss.used('heads').train()
    before = copy.deepcopy(heads.state_dict())
    loss([x.requires_grad_() for x in student], [x.requires_grad_() for x in teacher]).backward()
    assert all(x.grad is not None and x.grad.any() for x in student)
    assert [x.grad for x in (*teacher, *heads.parameters())] == [None] * (3 + 22)
    torch.testing.assert_close(heads.state_dict(), before, rtol=0, atol=0)
    assert heads.training
    assert not [*loss.parameters()]


def test_dropped_heads():
    loss, teacher = heads_of(SHAPES, heads=8), normal(*SHAPES)
    loss.head_drop = 0.5
    torch.manual_seed(1)
    values = [loss(teacher).item() for _ in range(4)]
    assert len(set(values)) == 4
    torch.manual_seed(1)
    assert loss(teacher).item() == values[0]
    loss.eval()
    assert loss(teacher) == loss(teacher)
    # what is dropped has no part in the estimate, and the others are scaled up
    pair, (front, back) = loss.pairs[0], [torch.randn(4, n).double() for n in (3, 6)]
    kept = torch.zeros(4, 8).double()
    torch.testing.assert_close(pair.estimate(front, back, kept), pair.estimator.bias.expand(4, -1))
    kept[2] = 2
    double = 2 * (pair.estimate(front, back, torch.ones(4, 8).double()) - pair.estimator.bias) + pair.estimator.bias
    torch.testing.assert_close(pair.estimate(front, back, kept)[2], double[2])


@pytest.mark.parametrize('rows', [0, 1, 2, 7])
@pytest.mark.parametrize('dead', [False, True])
def test_any_batch_and_dead_maps(rows, dead):
    """Such as a last, smaller one; with as many samples, graphs of another size go through the same heads."""
    loss = mhgd_of(SHAPES)
    student, teacher = (
        [(0 if dead else 1) * x for x in normal(*((rows, *s[1:]) for s in SHAPES), seed=n)] for n in (0, 1)
    )
    heads = loss.used('heads')
    for value, wants in (
        (loss([x.requires_grad_() for x in student], teacher), student),
        (heads(teacher), [*heads.parameters()]),
    ):
        assert value.isfinite()
        assert all(slope.isfinite().all() for slope in torch.autograd.grad(value, wants))
    assert all(buffer.isfinite().all() for buffer in heads.buffers())


def test_structure():
    loss = MHGDHeadsLoss()
    loss.build_connectors([(2, 4, 8, 8), (2, 7, 4, 4)])
    assert {name: tuple(p.shape) for name, p in loss.named_parameters() if p.ndim == 2} == {
        'pairs.0.theta.linear.weight': (8 * 5, 7),
        'pairs.0.phi.linear.weight': (8 * 5, 4),
        'pairs.0.value.linear.weight': (5, 4),
        'pairs.0.estimator.weight': (7, 8 * 5),
    }
    assert repr(MHGDHeadsLoss()).startswith(repr(MHGDHeadsLoss(8, 0.5, gather=False, loss_weight=1))[:-2])
    assert repr(MHGDLoss()) == repr(MHGDLoss('loss_heads', None, gather=False, loss_weight=1))


GATHERED = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from tests.losses.naive_features import normal
from tests.losses.relations.test_mhgd import SHAPES, heads_of
dist.init_process_group('gloo')
rank = dist.get_rank()
for first in (2, 1, 0):
    own, joined, teacher = heads_of(SHAPES, gather=True), heads_of(SHAPES), normal(*SHAPES)
    value, expected = own([x[[slice(first), slice(first, 4)][rank]] for x in teacher]), joined(teacher)
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(v, [*h.parameters()]) for v, h in ((value, own), (expected, joined))]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(own.state_dict(), joined.state_dict())
print('one batch', flush=True)
dist.barrier()
"""


def test_heads_that_gather_have_the_statistics_of_the_joined_batch(tmp_path):
    script = tmp_path / 'gathered.py'
    script.write_text(GATHERED)
    assert all('one batch' in process.stdout for process in together(script, ROOT))


def test_mistakes():
    refuses(MHGDLoss)
    for shapes in ([], SHAPES[:1], [(2, 3, 4, 4), (2, 5)], [(2, 3, 4, 4), (3, 5, 4, 4)]):
        for call in (MHGDHeadsLoss().build_connectors, lambda s: MHGDHeadsLoss()([torch.ones(x) for x in s])):
            with pytest.raises(ValueError, match='given, expected two or more, all maps') as error:
                call(shapes)
            assert str(shapes) in str(error.value)
    for scores in (torch.ones(2, 2), torch.ones(3, 2, 4), torch.ones(1, 3, 3)):
        with pytest.raises(ValueError, match=r'expected the scores of A heads between N samples, twice \(A, N, N\)'):
            mhgd_loss(scores, torch.ones(2, 3, 3))
    with pytest.raises(ValueError, match=r'estimate \(2, 3\) and teacher \(1, 3\) given, expected two tensors'):
        mhgd_heads_loss(torch.ones(2, 3), torch.ones(1, 3))
    for drop in (1.0, -0.1, True, 'half'):
        with pytest.raises(ValueError, match=f'head_drop={drop!r} given'):
            MHGDHeadsLoss(head_drop=drop)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match='MHGDLoss uses a MHGDHeadsLoss'):
        MHGDLoss()(*([torch.ones(s) for s in SHAPES],) * 2)
