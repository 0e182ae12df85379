from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.valuation import rank

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
