"""FSP: the formula, hand values, and what its matrices do not see."""

from typing import Any

import pytest
import torch

from mmkd_plugin.losses import FSPLoss, fsp_loss

from ..naive_features import normal
from . import naive_layers as naive

SIZES = [
    (((2, 2, 3, 4), (2, 3, 3, 4)), ((2, 2, 3, 4), (2, 3, 3, 4))),
    # three layers, other sizes in each network; places of pooled maps overlap, and one is higher and narrower
    (((2, 2, 6, 4), (2, 3, 3, 4), (2, 1, 2, 5)), ((2, 2, 5, 5), (2, 3, 3, 3), (2, 1, 1, 1))),
    (((1, 2, 1, 1), (1, 3, 1, 1)), ((1, 2, 1, 1), (1, 3, 4, 4))),
]


@pytest.mark.parametrize('pool', ['max', 'average'])
@pytest.mark.parametrize('shapes', SIZES)
def test_value_and_gradient_are_those_of_the_formula(shapes, pool):
    student, teacher = normal(*shapes[0]), normal(*shapes[1], seed=1)
    for layer in student:
        layer.requires_grad_()
    values = [function(student, teacher, pool) for function in (fsp_loss, naive.fsp)]
    torch.testing.assert_close(*values, rtol=1e-10, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(value, student) for value in values), rtol=1e-9, atol=1e-13)


def test_hand_values():
    """All-ones maps have G = 1 whatever their sizes; G is bilinear; pairs are summed."""
    ones = [torch.ones(2, 3, 4, 4), torch.ones(2, 5, 2, 2), torch.ones(2, 4, 1, 3)]
    assert fsp_loss([torch.zeros_like(x) for x in ones], ones) == 2
    assert fsp_loss([torch.zeros_like(ones[0]), *ones[1:]], ones) == 1
    assert fsp_loss([ones[0], 3 * ones[1], ones[2]], ones) == 2 * (3 - 1) ** 2
    assert fsp_loss([2 * x for x in ones], ones) == 2 * (4 - 1) ** 2
    # one channel each: G = (1·3 + 2·(-1)) / 2 = 1/2, and with the teacher's (1·1 + 1·1) / 2 = 1
    student = [torch.tensor([1.0, 2.0]).view(1, 1, 1, 2), torch.tensor([3.0, -1.0]).view(1, 1, 1, 2)]
    assert fsp_loss(student, [torch.ones(1, 1, 1, 2)] * 2) == 0.25
    # pooled to one place, the first is 2 (max) or 1.5 (average)
    student[1] = torch.ones(1, 1, 1, 1)
    for pool, g in (('max', 2), ('average', 1.5)):
        assert fsp_loss(student, [torch.ones(1, 1, 1, 1)] * 2, pool) == (g - 1) ** 2


def test_a_permutation_of_the_places_of_both_layers_changes_nothing():
    student, teacher = normal((2, 3, 4, 4), (2, 5, 4, 4)), normal((2, 3, 4, 4), (2, 5, 4, 4), seed=1)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))

    def shuffled(x):
        return x.flatten(2)[..., order].view(x.shape)

    value = fsp_loss(student, teacher)
    torch.testing.assert_close(fsp_loss([shuffled(x) for x in student], teacher), value)
    assert (fsp_loss([shuffled(student[0]), student[1]], teacher) - value).abs() > 1e-3


def test_nothing_as_large_as_channels_times_channels_times_places_is_made():
    student, teacher = normal((2, 16, 8, 8), (2, 24, 8, 8)), normal((2, 16, 8, 8), (2, 24, 8, 8), seed=1)
    sizes: list[int] = []

    def seen(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda x: x):
        fsp_loss([x.requires_grad_() for x in student], teacher)
    assert max(sizes) <= student[1].numel()


@pytest.mark.parametrize('kind', [FSPLoss])
def test_layers_that_do_not_correspond_are_refused(kind):
    refuses(kind)


def refuses(kind: Any) -> None:
    """What every loss refuses that relates each layer with the next."""
    a, b, vector = torch.ones(2, 3, 4, 4), torch.ones(2, 5, 2, 2), torch.ones(2, 5)
    for student, teacher in (
        ([a, b], [a, b, b]),
        ([a, b], [a]),
        ([a], [a]),
        ([], []),
        ([a, vector], [a, vector]),
        ([a, b], [a, vector]),
        ([a, b[:1]], [a, b]),
    ):
        for connector in (None, 'conv_bn'):
            loss = kind(connector=connector)
            for call, given in (
                (loss.build_connectors, ([x.shape for x in student], [x.shape for x in teacher])),
                (loss, (student, teacher)),
            ):
                with pytest.raises(ValueError, match='expected as many of each, two or more, all maps') as error:
                    call(*given)
                assert all(str(tuple(x.shape)) in str(error.value) for x in (*student, *teacher))
    calls: list[Any] = [(kind().build_connectors, (a.shape, b.shape)), (kind(), (a, b))]
    for call, given in calls:
        with pytest.raises(
            ValueError, match=r"different channels given: .*; expected as many.*connector='conv_bn'"
        ) as e:
            call([given[0], given[1]], [given[0], given[0]])
        assert '(2, 5, 2, 2) and (2, 3, 4, 4)' in str(e.value)


def test_connectors_make_channels_equal():
    shapes = [(2, 3, 8, 8), (2, 4, 4, 4)], [(2, 5, 8, 8), (2, 7, 4, 4)]
    loss = FSPLoss(connector='conv_bn')
    loss.build_connectors(*shapes)
    assert [tuple(p.shape) for p in loss.parameters() if p.ndim == 4] == [(5, 3, 1, 1), (7, 4, 1, 1)]
    student, teacher = ([torch.rand(shape) for shape in side] for side in shapes)
    expected = fsp_loss([c(x) for c, x in zip(loss.connectors, student, strict=True)], teacher)
    assert loss(student, teacher) == expected


def test_defaults_and_arguments():
    student, teacher = normal((2, 3, 4, 4), (2, 5, 2, 2)), normal((2, 3, 4, 4), (2, 5, 2, 2), seed=1)
    assert FSPLoss()(student, teacher) == fsp_loss(student, teacher, 'max')
    for pool in ('mean', None, 2):
        for call in (lambda pool=pool: FSPLoss(pool), lambda pool=pool: fsp_loss(student, teacher, pool)):
            with pytest.raises(ValueError, match="expected 'max' or 'average'"):
                call()
    with pytest.raises(ValueError, match="connector='conv' given, expected 'conv_bn' or None"):
        FSPLoss(connector='conv')
