"""BCKD: the formula position by position, and the reference's hand values."""

from types import SimpleNamespace

import pytest
import torch

from mmkd_plugin.losses import BCKDLoss
from mmkd_plugin.networks import DenseGrid

from ..naive_features import normal
from . import naive_heads as naive
from .test_crosskd import Points, naive_giou

SHAPES = [(2, 3, 4, 3), (2, 3, 2, 2), (2, 4, 4, 3), (2, 4, 2, 2)]
PLACES = [
    torch.tensor([[8.0 * x, 8.0 * y] for y in range(4) for x in range(3)]).double(),
    torch.tensor([[16.0 * x, 16.0 * y] for y in range(2) for x in range(2)]).double(),
]


def grid_of(points):
    generator = SimpleNamespace(grid_priors=lambda sizes, dtype, device: points)
    return DenseGrid('head', 3, 1, ((8.0, 8.0), (16.0, 16.0))[: len(points)], generator, 0, 'distances', Points())


@pytest.mark.parametrize(('skip_empty', 'empty'), [(True, True), (False, True), (True, False)])
def test_value_is_that_of_the_formula(skip_empty, empty):
    labels = torch.randint(0, 5, (32,), generator=torch.Generator().manual_seed(1)).clamp_max(3)
    if empty:
        labels[24:] = 3
    student, teacher = normal(*SHAPES), normal(*SHAPES, seed=1)
    student[2:], teacher[2:] = ([level.exp() * 9 for level in side[2:]] for side in (student, teacher))
    loss = BCKDLoss(2.5, skip_empty, loss_weight=0.7)
    loss.grid = grid_of(PLACES)
    rows = [naive.places([level.tolist() for level in side[:2]], 1) for side in (student, teacher)]
    sides = [naive.places([level.tolist() for level in side[2:]], 1) for side in (student, teacher)]
    where = [p for level in PLACES for p in level.tolist() * 2]
    total = 0.0
    for number in range(24 if skip_empty and empty else 32):
        q_s, q_t = ([naive.sigmoid(z).real for z in side[number]] for side in rows)
        total += naive.scores(
            rows[0][number : number + 1], rows[1][number : number + 1], [0], ('qfl', 1), 'all', 'positives', 0.5
        ).real
        (x, y), boxes = where[number], []
        for side in sides:
            a, b, c, d = (z.real for z in side[number])
            boxes.append((x - a, y - b, x + c, y + d))
        weight = max(abs(s - t) for s, t in zip(q_s, q_t, strict=True))
        total += 2.5 * weight * (1 - naive_giou(*boxes))
    positives = int((labels < 3).sum())
    assert loss(student, teacher, (labels,)).item() == pytest.approx(0.7 * total / positives, rel=1e-9)


def test_hand_values():
    """Boxes (0,0,2,2) and (1,0,3,2), a weight of 1/4 and one positive: 2/3 after the factor 4."""
    loss = BCKDLoss()
    loss.grid = grid_of([torch.zeros(1, 2).double()])
    z = torch.zeros(1, 1, 1, 1).double()
    scores = z, z + torch.tensor(3.0).double().log()  # 1/2 and 3/4
    boxes = (torch.tensor(numbers).double().view(1, 4, 1, 1) for numbers in ([0.0, 0, 2, 2], [-1.0, 0, 3, 2]))
    student, teacher = ([s, b] for s, b in zip(scores, boxes, strict=True))
    value = loss(student, teacher, (torch.tensor([0]),)).item()
    assert value == pytest.approx(0.1732868 + 2 / 3, abs=1e-6)
    assert loss(teacher, teacher, (torch.tensor([0]),)).item() == pytest.approx(0, abs=1e-12)


def test_refusals():
    with pytest.raises(ValueError, match='nobody told how to read them'):
        BCKDLoss()(normal(*SHAPES), normal(*SHAPES), (torch.zeros(32, dtype=torch.int64),))
    with pytest.raises(ValueError, match='box_weight=-1 given'):
        BCKDLoss(box_weight=-1)
