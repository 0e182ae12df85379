"""Values of dropped samples fall as those of the others did."""

from math import isnan, nan

import numpy as np
import pytest

from mmkd_plugin.kcd.valuation import ValueTable, fall, level


def test_by_hand():
    # kept: 4, 2, 1 at the round, 1, 0.5, 0.5 at the next: the median fell from 2 to 0.5
    assert fall(level([4.0, 2.0, 1.0]), level([1.0, 0.5, 0.5])) == 0.25
    table = ValueTable(3)
    table.update([0, 1, 2], [0.8, 3.0, 0.2])
    table.age(np.array([0, 2]), 0.25)
    assert table.mean.tolist() == pytest.approx([0.2, 3.0, 0.05])
    assert table.count.tolist() == [1, 1, 1]


def test_where_nothing_is_known():
    assert isnan(level([]))
    assert [fall(0.0, 0.0), fall(nan, 1.0), fall(1.0, nan), fall(2.0, 3.0)] == [1.0, 1.0, 1.0, 1.5]


def test_a_value_that_stands_for_several_epochs():
    table, other = ValueTable(1), ValueTable(1)
    for value in (5.0, 1.0):
        table.update([0], [value])
        other.update([0], [value])
    table.update([0], [0.5], times=4)
    for _ in range(4):
        other.update([0], [0.5])
    assert table.mean[0] == pytest.approx(other.mean[0]) == pytest.approx((5 + 1 + 4 * 0.5) / 6)
    assert table.count[0] == 6
