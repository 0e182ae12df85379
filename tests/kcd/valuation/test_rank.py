from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.kcd.valuation import random_scores, rank

TIED = st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0, inf])


@settings(deadline=None)
@given(st.lists(TIED, max_size=30))
def test_rank_is_a_stable_sort(scores):
    order = rank(np.array(scores))
    assert order.dtype == np.int64
    assert order.tolist() == sorted(range(len(scores)), key=lambda position: -scores[position])


def test_rank_leaves_scores_alone():
    scores = np.array([1.0, 2.0])
    rank(scores)
    assert scores.tolist() == [1.0, 2.0]


@pytest.mark.parametrize('scores', [[nan], [inf, nan, 1.0]])
def test_nan_has_no_rank(scores):
    with pytest.raises(ValueError, match='NaN given as a score'):
        rank(scores)


def test_rank_of_a_table():
    with pytest.raises(ValueError, match='expected one row'):
        rank(np.zeros((2, 2)))


def test_a_dropped_sample_returns_as_easily_as_any_other():
    # that a share of 1/2 of 5,000 is off by 0.03 has a probability of 2e-5
    scores = [random_scores(10_000, seed=3, round_number=number) for number in range(3)]
    for before, after in ((0, 1), (1, 2), (0, 2)):
        dropped, kept = (
            set(rank(scores[i])[part].tolist()) for i, part in ((before, slice(5000, None)), (after, slice(5000)))
        )
        assert len(dropped & kept) / 5000 == pytest.approx(0.5, abs=0.03)


def test_chance_depends_on_seed_and_round_only():
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    first = random_scores(5, 3, 1)
    np.testing.assert_array_equal(first, random_scores(5, 3, 1))
    assert not (first == random_scores(5, 3, 2)).any()
    assert not (first == random_scores(5, 4, 1)).any()
    assert np.random.rand() == expected
