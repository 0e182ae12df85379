"""Values beside entropy: the loss, the distance from the teacher, the margin, being wrong."""

from math import exp, inf, log, nan
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.kcd.valuation import RANDOM, VALUES, kl, loss, margin, needs_of, register_value, wrong

ROW = st.lists(st.floats(-60, 60, width=32), min_size=4, max_size=4)
CLOSE: dict[str, Any] = {'rel': 1e-5, 'abs': 1e-6}  # float32 against float64
THIRDS = torch.tensor([[0.5, 0.25, 0.25]]).log()


def shares(row: list[float]) -> list[float]:
    parts = [exp(z - max(row)) for z in row]
    return [part / sum(parts) for part in parts]


def log_share(row: list[float], c: int) -> float:
    return row[c] - max(row) - log(sum(exp(z - max(row)) for z in row))


def naive_loss(row: list[float], label: int) -> float:
    return -log_share(row, label)


def naive_kl(row: list[float], teacher: list[float]) -> float:
    return sum(q * (log_share(teacher, c) - log_share(row, c)) for c, q in enumerate(shares(teacher)) if q)


def naive_margin(row: list[float]) -> float:
    second, first = sorted(shares(row))[-2:]
    return 1 - (first - second)


@given(st.lists(st.tuples(ROW, ROW, st.integers(0, 3)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=50)
def test_any_logits_give_the_formulas(rows):
    logits, teacher, labels = ([row[i] for row in rows] for i in range(3))
    z, t, y = torch.tensor(logits), torch.tensor(teacher), torch.tensor(labels)
    assert loss(z, y).tolist() == pytest.approx(list(map(naive_loss, logits, labels)), **CLOSE)
    assert kl(z, t).tolist() == pytest.approx(list(map(naive_kl, logits, teacher)), rel=1e-4, abs=1e-5)
    assert margin(z).tolist() == pytest.approx(list(map(naive_margin, logits)), **CLOSE)
    for values in (loss(z, y), kl(z, t), margin(z)):
        assert (values >= 0).all()


def test_hand_values():
    assert loss(THIRDS, torch.tensor([1])).item() == pytest.approx(log(4))
    assert margin(THIRDS).item() == pytest.approx(0.75)
    # 1/2 ln (1/2 : 1/4) twice, for a teacher (0, 1/2, 1/2)
    assert kl(THIRDS, torch.tensor([[-inf, 0.0, 0.0]])).item() == pytest.approx(log(2))
    assert kl(THIRDS, THIRDS + 3).item() == pytest.approx(0, abs=1e-6)
    assert wrong(torch.cat([THIRDS, THIRDS]), torch.tensor([0, 2])).tolist() == [0, 1]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_and_no_gradient(dtype):
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    labels = torch.tensor([0, 3, 1])
    for values in (loss(logits, labels), kl(logits, logits.flip(1)), margin(logits), wrong(logits, labels)):
        assert (values.dtype, values.shape, values.requires_grad) == (torch.float32, (3,), False)
    assert loss(logits, labels).tolist() == pytest.approx(
        list(map(naive_loss, logits.tolist(), labels.tolist())), **CLOSE
    )


def test_nan_is_not_hidden():
    logits, labels = torch.tensor([[0.0, 1.0], [nan, 1.0], [inf, 1.0]]), torch.tensor([1, 1, 0])
    for values in (loss(logits, labels), kl(logits, torch.zeros(3, 2)), margin(logits), wrong(logits, labels)):
        assert values.isnan().tolist() == [False, True, True]
    assert kl(torch.zeros(1, 2), torch.tensor([[nan, 0.0]])).isnan().all()


@pytest.mark.parametrize('labels', [torch.zeros(2, dtype=torch.int64), torch.zeros(1), torch.zeros(1, 1).long()])
def test_labels_that_do_not_fit(labels):
    for function in (loss, wrong):
        with pytest.raises(ValueError, match='expected one class for each row'):
            function(THIRDS, labels)


def test_logits_that_do_not_fit():
    with pytest.raises(ValueError, match=r"teacher's logits \(1, 2\) given for a student's \(1, 3\)"):
        kl(THIRDS, torch.zeros(1, 2))
    with pytest.raises(ValueError, match='expected two classes or more'):
        margin(torch.zeros(1, 1))


def test_what_each_reads_beside_the_logits():
    needs = {name: list(needs_of(function)) for name, function in VALUES.items()}
    assert needs == {
        'entropy': [], 'margin': [], 'loss': ['labels'], 'forgetting': ['labels'], 'kl': ['teacher'],
    }  # fmt: skip
    assert RANDOM not in needs


def test_a_value_that_reads_what_nobody_gives(monkeypatch):
    monkeypatch.setattr('mmkd_plugin.kcd.valuation.values.VALUES', {})
    with pytest.raises(ValueError, match=r"'odd' names 'boxes' behind the logits, expected some of labels, teacher"):
        register_value('odd')(lambda logits, labels, boxes: logits[:, 0])
    assert list(needs_of(register_value('even')(lambda logits, power=2: logits[:, 0]))) == []
