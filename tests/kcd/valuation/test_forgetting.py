"""How often a sample was forgotten, against the algorithm of the paper one sample after the other."""

import io
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.kcd.valuation import ForgettingTable, ValueTable, random_scores, rank

SIZE = 5
EPOCHS = st.lists(st.dictionaries(st.integers(0, SIZE - 1), st.booleans()), max_size=12)


def filled(epochs):
    table = ForgettingTable(SIZE)
    for right in epochs:
        table.update(list(right), [0.0 if is_right else 1.0 for is_right in right.values()])
    return table


def naive_counts(epochs):
    """Toneva et al., algorithm 1: `prev_acc`, `acc` and the counter, for each sample."""
    counts, ever = [], []
    for sample in range(SIZE):
        accuracies = [int(right[sample]) for right in epochs if sample in right]
        events, previous = 0, 0
        for accuracy in accuracies:
            if previous > accuracy:
                events += 1
            previous = accuracy
        counts.append(events)
        ever.append(any(accuracies))
    return counts, ever


@given(EPOCHS)
@settings(deadline=None, max_examples=100)
def test_counts_are_those_of_the_paper(epochs):
    counts, ever = naive_counts(epochs)
    table = filled(epochs)
    assert table.mean.tolist() == counts
    assert table.scores(alpha=0).tolist() == [c if learned else inf for c, learned in zip(counts, ever, strict=True)]
    assert table.count.tolist() == [sum(sample in right for right in epochs) for sample in range(SIZE)]


def test_by_hand():
    # right, wrong, right, right, wrong: forgotten twice in five epochs
    table = filled([{0: True}, {0: False}, {0: True}, {0: True}, {0: False}])
    assert (table.mean[0], table.count[0], table.scores(alpha=1)[0]) == (2, 5, 10)


def test_a_pass_that_stands_for_several_epochs_is_one_look():
    table = filled([{0: True}])
    table.update([0], [1.0], times=4)
    assert (table.mean[0], table.count[0]) == (1, 5)


@given(EPOCHS, EPOCHS)
@settings(deadline=None, max_examples=30)
def test_goes_on_from_a_file_exactly(before, after):
    whole, first = filled([*before, *after]), filled(before)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = ForgettingTable(SIZE)
    second.load_state_dict(torch.load(file, weights_only=True))
    for right in after:
        second.update(list(right), [float(not is_right) for is_right in right.values()])
    for name in ('mean', 'count', 'right', 'learned'):
        np.testing.assert_array_equal(getattr(second, name), getattr(whole, name))


def test_states_of_others():
    with pytest.raises(ValueError, match='a state without what was right before given'):
        ForgettingTable(2).load_state_dict(ValueTable(2).state_dict())
    with pytest.raises(ValueError, match='expected size, mean and count'):
        ValueTable(2).load_state_dict(ForgettingTable(2).state_dict())
    with pytest.raises(ValueError, match='values of 3 samples given, expected 2'):
        ForgettingTable(2).load_state_dict(ForgettingTable(3).state_dict())


def test_chance_ranks_equal_counts():
    scores = [0.0, 2.0, 0.0, 0.0, 2.0, 1.0]
    chance = random_scores(6, seed=0, round_number=0)
    expected = sorted(range(6), key=lambda i: (-scores[i], -chance[i]))
    assert rank(scores, chance).tolist() == expected
    orders = {tuple(rank(scores, random_scores(6, seed, 0)).tolist()) for seed in range(20)}
    assert len(orders) > 5
    assert all({*order[:2]} == {1, 4} and order[2] == 5 for order in orders)
