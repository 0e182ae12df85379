from math import inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.kcd.valuation import ValueTable, entropy, rank

VALUE = st.floats(0, 10)


def filled(*rounds: dict[int, float], size: int = 4) -> ValueTable:
    table = ValueTable(size)
    for values in rounds:
        table.update(list(values), list(values.values()))
    return table


def test_running_mean_by_hand():
    # Eq 12: 1; 1/2 * 1 + 2/2 = 1.5; 2/3 * 1.5 + 6/3 = 3
    table = ValueTable(3)
    means = []
    for value in (1.0, 2.0, 6.0):
        table.update(torch.tensor([1]), torch.tensor([value]))
        means.append(table.mean[1])
    assert means == [1.0, 1.5, 3.0]
    assert table.count.tolist() == [0, 3, 0]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(st.integers(0, 5), VALUE), max_size=8))
def test_the_mean_is_that_of_all_values_of_a_sample(rounds):
    table = filled(*rounds, size=6)
    for sample in range(6):
        seen = [values[sample] for values in rounds if sample in values]
        assert table.count[sample] == len(seen)
        assert table.mean[sample] == pytest.approx(sum(seen) / max(len(seen), 1))


def test_twelve_bytes_a_sample():
    table = ValueTable(1000)
    assert table.mean.nbytes + table.count.nbytes == 8 * len(table)


def test_the_more_trained_of_two_equal_ones_ranks_higher():
    table = filled({0: 2.0, 1: 2.0}, {1: 2.0}, size=2)
    assert rank(table.scores(alpha=0.03)).tolist() == [1, 0]
    assert rank(table.scores(alpha=0.0)).tolist() == [0, 1]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(st.integers(0, 4), VALUE, min_size=1), min_size=1, max_size=6), st.floats(0, 1))
def test_scores_are_those_of_the_formula(rounds, alpha):
    table = filled(*rounds, size=5)
    expected = [mean * count**alpha if count else inf for mean, count in zip(table.mean, table.count, strict=True)]
    assert table.scores(alpha).tolist() == pytest.approx(expected)


@pytest.mark.parametrize('alpha', [0, 0.03, 1])
def test_never_seen_is_first_and_zero_counts_as_seen(alpha):
    # the official code takes an entropy of 0 for "not seen"
    table = ValueTable(3)
    table.update(torch.tensor([0, 2]), entropy(torch.tensor([[500.0, 0.0], [1.0, 1.0]], dtype=torch.float16)))
    assert table.count.tolist() == [1, 0, 1]
    assert table.scores(alpha)[:2].tolist() == [0, inf]
    assert rank(table.scores(alpha)).tolist() == [1, 2, 0]


def test_nan_logits_name_their_samples_and_change_nothing():
    table = filled({3: 1.0}, size=30)
    logits = torch.zeros(9, 2)
    logits[1:8, 0] = nan
    with pytest.raises(FloatingPointError, match=r'7 samples .* \[11, 12, 13, 14, 15\]; expected .*learning rate'):
        table.update(torch.arange(10, 19), entropy(logits))
    assert table.count.sum() == 1


@pytest.mark.parametrize('value', [nan, inf, -inf])
def test_values_that_are_no_numbers(value):
    with pytest.raises(FloatingPointError, match=r'samples \[2\]'):
        ValueTable(4).update([0, 2], [1.0, value])


@pytest.mark.parametrize('indices', [[0, 1, 0], torch.tensor([2, 2, 3])])
def test_a_sample_twice(indices):
    with pytest.raises(ValueError, match=r'samples \[[02]\] given more than once'):
        ValueTable(4).update(indices, [1.0, 2.0, 3.0])


@pytest.mark.parametrize('indices', [[-1, 2], [0, 4]])
def test_an_index_out_of_range(indices):
    with pytest.raises(ValueError, match='expected 0 to 3'):
        ValueTable(4).update(indices, [1.0, 2.0])


@pytest.mark.parametrize('indices', [[0.0, 1.0], [True, False], torch.tensor([0.5, 1.0])])
def test_indices_that_are_no_whole_numbers(indices):
    with pytest.raises(TypeError, match='expected whole numbers'):
        ValueTable(4).update(indices, [1.0, 2.0])


@pytest.mark.parametrize(('indices', 'values'), [([0], [1.0, 2.0]), ([[0]], [[1.0]]), ([0, 1], [[1.0], [2.0]])])
def test_other_shapes(indices, values):
    with pytest.raises(ValueError, match='expected one value for each index'):
        ValueTable(4).update(indices, values)


def test_an_empty_batch_changes_nothing():
    table = ValueTable(2)
    table.update([], [])
    assert table.count.tolist() == [0, 0]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_of_any_precision(dtype):
    table = ValueTable(3)
    table.update(torch.tensor([2, 0], dtype=torch.int32), torch.tensor([0.5, 2.0], dtype=dtype).requires_grad_())
    assert table.mean.tolist() == [2.0, 0.0, 0.5]


@pytest.mark.parametrize('size', [0, -1, 2.0, None])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match='expected the number of training samples'):
        ValueTable(size)


@pytest.mark.parametrize('alpha', [-0.1, inf, nan])
def test_bad_alphas(alpha):
    with pytest.raises(ValueError, match='expected a finite number >= 0'):
        ValueTable(1).scores(alpha)
