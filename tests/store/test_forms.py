"""What becomes of values on their way to the disk and back."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.losses.logits.kd import kd_loss
from mmkd_plugin.store import Shifted, TopK, Whole, form_of

LOGITS = torch.randn(7, 12, generator=torch.Generator().manual_seed(0)) * 4 + 30


def back(form, value, temperature=None):
    records = form.encode(value)
    assert records.dtype == form.layout
    return form.decode(records, temperature)


def smooth(logits, keep, temperature):
    """The target of D13.2 in loops: kept probabilities, the rest of the mass evenly."""
    target = []
    for row in (logits.double() / temperature).softmax(1).tolist():
        kept = sorted(range(len(row)), key=lambda c: -row[c])[:keep]
        rest = 1 - sum(row[c] for c in kept)
        target.append([row[c] if c in kept else rest / (len(row) - keep) for c in range(len(row))])
    return torch.tensor(target, dtype=torch.float64)


def test_float32_is_exact():
    value = torch.randn(3, 2, 5, 4)
    assert torch.equal(back(Whole((2, 5, 4), 'float32'), value), value)


def test_float16_is_rounded_once():
    value = torch.randn(3, 8)
    assert torch.equal(back(Whole((8,), 'float16'), value), value.half().float())


def test_half_tensors_are_kept_as_they_are():
    value = torch.randn(3, 8).bfloat16()
    assert torch.equal(back(Whole((8,), 'float32'), value), value.float())


def test_class_scores_are_finest_where_a_softmax_reads_them():
    got = back(Shifted((12,), 'float16'), LOGITS)
    near = LOGITS.amax(1, keepdim=True) - 2 < LOGITS
    assert (got - LOGITS)[near].abs().max() < 1e-3  # 30 has a spacing of 0.016
    assert (LOGITS.half().float() - LOGITS)[near].abs().max() > 5e-3
    assert torch.equal(got.amax(1), LOGITS.amax(1))


@pytest.mark.parametrize(('keep', 'temperature'), [(1, 1.0), (3, 4.0), (11, 2.0)])
def test_of_the_largest_the_softmax_is_the_smooth_target(keep, temperature):
    got = back(TopK((12,), 'float32', (1.0, 2.0, 4.0), keep), LOGITS, temperature)
    probabilities = (got.double() / temperature).softmax(1)
    torch.testing.assert_close(probabilities, smooth(LOGITS, keep, temperature), rtol=0, atol=2e-6)
    assert torch.equal(got.amax(1), LOGITS.amax(1))


def test_by_hand():
    """z = [2, 1, 0, -1], kept 0.6 and 0.3: the divergence of the smoothed target is 0.0229293 (reference, D13.4)."""
    teacher = torch.tensor([[0.6, 0.3, 0.07, 0.03]]).log()
    student = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    kept = back(TopK((4,), 'float32', (1.0,), 2), teacher, 1.0)
    assert math.isclose(kd_loss(student, kept, temperature=1.0).item(), 0.0229293, abs_tol=1e-6)


def test_the_rest_has_mass_where_float16_rounds_the_kept_to_all_of_it():
    """Probabilities 0.9998 and 0.0002 in float16 add up to more than 1."""
    teacher = torch.tensor([[0.9997, 0.0002, 0.0001]]).log()
    kept = back(TopK((3,), 'float16', (1.0,), 2), teacher, 1.0)
    assert kept.softmax(1).min() > 0
    assert torch.isfinite(kd_loss(torch.zeros(1, 3), kept, 1.0))


def test_many_classes_take_four_bytes_each():
    assert TopK((10,), 'float16', (1.0,), 3).layout['classes'].base == np.dtype('<u2')
    assert TopK((70_000,), 'float16', (1.0,), 3).layout['classes'].base == np.dtype('<u4')


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(0.1, 50))
@settings(max_examples=25, deadline=None)
def test_any_scores_come_back(seed, classes, scale):
    value = torch.randn(4, classes, generator=torch.Generator().manual_seed(seed)) * scale
    for form in (Shifted((classes,), 'float16'), TopK((classes,), 'float32', (2.0,), classes - 1)):
        torch.testing.assert_close(back(form, value, 2.0), value, rtol=1e-3, atol=5e-3 * scale)


@pytest.mark.parametrize('form', [Whole((3,), 'float16'), Shifted((3,), 'float16'), TopK((3,), 'float32', (1.0,), 2)])
def test_what_is_not_finite_is_not_kept(form):
    with pytest.raises(FloatingPointError, match='not finite'):
        form.encode(torch.tensor([[1.0, math.nan, 0.0]]))


def test_what_is_too_large_is_not_kept():
    with pytest.raises(FloatingPointError, match=r"1e\+06 do not fit into float16: say dtype='float32'"):
        Whole((2,), 'float16').encode(torch.tensor([[1e6, 0.0]]))


@pytest.mark.parametrize(
    ('shape', 'temperatures', 'keep', 'message'),
    [
        ((4, 4), (1.0,), 2, 'no class scores'),
        ((4,), (1.0,), 4, 'keep=4 given of 4 classes'),
        ((4,), (), 2, 'no temperature'),
    ],
)
def test_the_largest_of_what(shape, temperatures, keep, message):
    with pytest.raises(ValueError, match=message):
        TopK(shape, 'float16', temperatures, keep)


def test_another_temperature_is_refused():
    form = TopK((12,), 'float32', (1.0,), 3)
    with pytest.raises(ValueError, match=r'\[1.0\], and is read at 4'):
        form.decode(form.encode(LOGITS), 4.0)


@pytest.mark.parametrize(
    'form', [Whole((2, 3), 'float16'), Shifted((9,), 'float16'), TopK((9,), 'float32', (1.0, 4.0), 3)]
)
def test_a_header_tells_it(form):
    again = form_of(form.to_dict())
    assert type(again) is type(form)
    assert again.layout == form.layout


@pytest.mark.parametrize('told', [{}, {'form': 'whole'}, {'form': 'other', 'shape': [1], 'dtype': 'float16'}])
def test_a_form_that_is_none(told):
    with pytest.raises(ValueError, match='tells no form'):
        form_of(told)
