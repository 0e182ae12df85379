import ast
from math import exp, inf, log, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.kcd import valuation
from mmkd_plugin.kcd.valuation import RANDOM, VALUES, entropy, register_value

# float32 against float64
TOLERANCE: dict[str, Any] = {'rel': 1e-5, 'abs': 1e-6}


def naive_entropy(row: list[float]) -> float:
    shares = [exp(z - max(row)) for z in row]
    return sum(-s / sum(shares) * log(s / sum(shares)) for s in shares if s)


def test_undecided_among_a_hundred_classes():
    assert entropy(torch.full((2, 100), 3.0)).tolist() == pytest.approx([4.6051702] * 2, abs=1e-6)  # ln 100


def test_hand_value():
    # p = (1/2, 1/4, 1/4): (1/2 + 2 * 1/4 * 2) ln 2
    assert entropy(torch.tensor([[0.5, 0.25, 0.25]]).log()).item() == pytest.approx(1.5 * log(2), abs=1e-6)


@given(st.data(), st.integers(1, 4), st.integers(1, 6))
@settings(deadline=None, max_examples=50)
def test_any_logits_give_the_formula(data, n, classes):
    row = st.lists(st.floats(-60, 60, width=32), min_size=classes, max_size=classes)
    rows = data.draw(st.lists(row, min_size=n, max_size=n))
    assert entropy(torch.tensor(rows)).tolist() == pytest.approx([naive_entropy(r) for r in rows], **TOLERANCE)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_precision(dtype):
    logits = (torch.randn(5, 7, generator=torch.Generator().manual_seed(0)) * 5).to(dtype).requires_grad_()
    values = entropy(logits)
    assert (values.dtype, values.shape, values.requires_grad) == (torch.float32, (5,), False)
    assert values.tolist() == pytest.approx([naive_entropy(row) for row in logits.tolist()], **TOLERANCE)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_saturated_logits_give_zero(dtype):
    # the official probs * log(probs) is NaN here
    logits = torch.tensor([[60000, -60000, 0], [0, 200, -inf]], dtype=dtype)
    assert entropy(logits).tolist() == [0, 0]


def test_nan_is_not_hidden():
    values = entropy(torch.tensor([[0.0, 1.0], [nan, 1.0], [inf, 1.0]]))
    assert values.isnan().tolist() == [False, True, True]


def test_empty_batch():
    assert entropy(torch.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize('shape', [(3,), (2, 3, 4)])
def test_other_shapes(shape):
    with pytest.raises(ValueError, match=r'expected \(N, C\)'):
        entropy(torch.zeros(shape))


def test_registering(monkeypatch):
    monkeypatch.setattr('mmkd_plugin.kcd.valuation.values.VALUES', names := {'entropy': entropy})
    assert VALUES['entropy'] is entropy
    assert register_value('entropy')(entropy) is entropy  # a module that is loaded twice
    margin = register_value('margin')(lambda logits: logits[:, 0])
    assert names == {'entropy': entropy, 'margin': margin}
    with pytest.raises(ValueError, match=r"'entropy' is given twice.*\['entropy', 'margin', 'random'\]"):
        register_value('entropy')(lambda logits: logits[:, 0])


def test_chance_is_no_value():
    assert RANDOM not in VALUES
    with pytest.raises(ValueError, match="'random' is given twice"):
        register_value(RANDOM)(entropy)


def test_the_room_knows_numpy_and_torch_only():
    imported = set()
    for file in Path(valuation.__path__[0]).glob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level < 2, file  # no other room of ours
                imported |= {(node.module or '').split('.')[0]} if not node.level else set()
    assert imported <= {'numpy', 'torch', 'collections', 'dataclasses', 'fractions', 'inspect', 'typing'}
