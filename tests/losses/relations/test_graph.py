"""The representation graph: the formula, what compact bilinear pooling is in expectation, and the order of teachers."""

import pytest
import torch

from mmkd_plugin.losses import RepresentationGraphLoss, compact_bilinear, representation_graph_loss
from mmkd_plugin.losses.relations.graph import CountSketch, _convolved

from .. import naive_features as naive
from ..conftest import value_and_gradient
from ..logits import naive_graph
from ..naive_features import normal, unit

SHAPES = {'a': (5, 4), 'b': (5, 3, 2, 3), 'c': (5, 4)}


def built(names='abc', student=(5, 6), **arguments):
    torch.manual_seed(0)
    loss = RepresentationGraphLoss(**{'dimension': 11, **arguments})
    loss.build_connectors(student, {name: SHAPES[name] for name in names})
    return loss.double()


def taps():
    student, *teachers = normal((5, 6), *SHAPES.values())
    return student, dict(zip(SHAPES, teachers, strict=True))


@pytest.mark.parametrize(('kernel', 'power'), [('linear', 1), ('polynomial', 2)])
def test_value_and_gradient_are_those_of_the_formula(kernel, power):
    """MMD as means over all pairs of samples, of sketches that are sums over all pairs of entries."""
    loss, (student, teachers) = built(kernel=kernel, weights={'a': 1, 'b': 2, 'c': 3}), taps()
    vectors = [x.tolist() if x.ndim == 2 else x.mean((2, 3)).tolist() for x in teachers.values()]
    hashes = [sketch.index.tolist() for sketch in loss.sketches]
    signs = [sketch.sign.tolist() for sketch in loss.sketches]
    targets = {
        (m, n): [
            naive_graph.pooled(naive_graph.compact_bilinear(a, b, (hashes[m], hashes[n]), (signs[m], signs[n]), 11))
            for a, b in zip(vectors[m], vectors[n], strict=True)
        ]
        for m, n in ((0, 1), (0, 2), (1, 2))
    }
    weights = {(0, 1): 2 / 11, (0, 2): 3 / 11, (1, 2): 6 / 11}  # products of two teachers', in proportion
    matrix = loss.project.weight.tolist()

    def expected(rows):
        projected = [unit([naive.dot(w, row) for w in matrix]) for row in rows]
        return sum((weights[pair] * naive_graph.mmd2(x, projected, power) for pair, x in targets.items()), start=0j)

    value, gradient = value_and_gradient(loss, student, teachers)
    assert value.item() == pytest.approx(expected(student.tolist()).real, rel=1e-6)  # weights are float32
    torch.testing.assert_close(gradient, naive.gradient(expected, student), rtol=1e-5, atol=1e-9)


def test_compact_bilinear_pooling_is_the_product_of_inner_products_in_expectation():
    """Over random hashes, <CBP(a, b), CBP(c, d)> has the mean <a, c> <b, d>."""
    a, b, c, d = normal((1, 6), (1, 5), (1, 6), (1, 5))
    c, d = a + c / 2, b + d / 2
    products = []
    for seed in range(3000):
        first, second = CountSketch(6, 16, seed), CountSketch(5, 16, 10_000 + seed)
        products.append((_convolved(first(a), second(b)) * _convolved(first(c), second(d))).sum())
    found = torch.stack(products)
    expected = (a @ c.mT * (b @ d.mT)).item()
    error = found.std().item() / len(found) ** 0.5
    assert abs(found.mean().item() - expected) < 3.5 * error
    assert error < 0.05 * abs(expected)


def test_sketches():
    sketch = CountSketch(50, 7, seed=3)
    assert sketch.index.unique().tolist() == list(range(7))
    assert sketch.sign.unique().tolist() == [-1, 1]
    assert not torch.equal(sketch.index, CountSketch(50, 7, seed=4).index)
    (x,) = normal((2, 50))
    expected = torch.zeros(2, 7).double()
    for entry, (place, sign) in enumerate(zip(sketch.index.tolist(), sketch.sign.tolist(), strict=True)):
        expected[:, place] += sign * x[:, entry]
    torch.testing.assert_close(sketch(x), expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('scale', [1e-8, 1.0, 1e4])
def test_pooled_vectors_have_length_one_whatever_their_scale(dtype, scale):
    first, second = CountSketch(4, 512, 1), CountSketch(3, 512, 2)
    a, b = (x.to(dtype) for x in normal((3, 4), (3, 3)))
    pooled = compact_bilinear(first(scale * a), second(scale * b))
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(3, dtype=dtype))
    assert (pooled != 0).sum(1).max() <= 12  # 4 x 3 products, and nothing of what the transform leaves elsewhere
    torch.testing.assert_close(pooled, compact_bilinear(first(a), second(b)), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(pooled, compact_bilinear(second(scale * b), first(scale * a)), rtol=1e-3, atol=1e-5)
    assert (compact_bilinear(first(0 * a), second(b)) == 0).all()


@pytest.mark.parametrize('arguments', [{}, {'weights': {'a': 1, 'b': 5, 'c': 2}, 'kernel': 'polynomial'}])
def test_teachers_may_be_named_in_any_order(arguments):
    student, teachers = taps()
    loss, other = built('abc', **arguments), built('cab', **arguments)
    torch.testing.assert_close(other(student, teachers), loss(student, teachers))
    torch.testing.assert_close(loss(student, dict(reversed(teachers.items()))), loss(student, teachers))


def test_hand_values():
    x, y = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    # means (1/2, 1/2) and (1, 0): 1/4 + 1/4
    assert representation_graph_loss(x, [y]).item() == pytest.approx(0.5)
    # means of squared inner products: 1/2 and 1 within, 1/2 across
    assert representation_graph_loss(x, [y], kernel='polynomial').item() == pytest.approx(0.5)
    assert representation_graph_loss(3 * x, [x, x.flip(0)]).item() == pytest.approx(0)  # length, and order of samples
    assert representation_graph_loss(x, [y, x], torch.tensor([0.75, 0.25])).item() == pytest.approx(0.375)


def test_hashes_take_nothing_from_the_random_state_and_are_kept():
    torch.manual_seed(0)
    loss = RepresentationGraphLoss(dimension=5)
    loss.build_connectors((2, 3), {'a': (2, 4), 'b': (2, 4)})
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.nn.Linear(3, 5, bias=False)
    assert torch.equal(after, torch.rand(1))
    assert {'sketches.0.index', 'sketches.1.sign', 'project.weight'} <= loss.state_dict().keys()
    hashes = [value for name, value in loss.state_dict().items() if name.endswith('index')]
    assert not torch.equal(*hashes)


def test_mistakes():
    with pytest.raises(ValueError, match="kernel='gaussian' given, expected 'linear' or 'polynomial'"):
        RepresentationGraphLoss(kernel='gaussian')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='dimension=0 given'):
        RepresentationGraphLoss(dimension=0)
    with pytest.raises(ValueError, match='expected two teachers or more'):
        built('a')
    with pytest.raises(ValueError, match=r'none of .* has one > 0'):
        built('ab', weights={'a': 1, 'b': 0})
    with pytest.raises(ValueError, match=r'student \(2, 3\) and pairs \[\(2, 4\)\] given'):
        representation_graph_loss(torch.ones(2, 3), [torch.ones(2, 4)])
