from fractions import Fraction
from math import nan

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmkd_plugin.kcd.valuation import keep_counts

PERCENT = st.integers(1, 100)


def naive_linear(size: int, rounds: int, percent: int) -> list[int]:
    """Equal steps in whole numbers."""
    return [max(size - r * size * (100 - percent) // (100 * rounds), 1) for r in range(1, rounds + 1)]


def official_linear(size: int, rounds: int, percent: int) -> list[int]:
    """The official loop in whole numbers."""
    counts, previous = [], size
    for _ in range(rounds):
        previous = max(percent * size // 100, previous - size * (100 - percent) // (100 * rounds))
        counts.append(previous)
    return counts


def test_the_official_counts():
    # N = 50000, rho = 0.7, after epochs 40, 80 ... 240 (methods.md, section 26)
    assert keep_counts(50000, 6, 0.7) == [47500, 45000, 42500, 40000, 37500, 35000]


def test_passes_over_the_data():
    # the last round comes after the last epoch: 87.5 % linear (derived there), 86.6 % geometric
    for schedule, passes in {'linear': 0.875, 'geometric': 0.866}.items():
        before_each = [50000, *keep_counts(50000, 6, 0.7, schedule)[:-1]]
        assert sum(before_each) / 6 / 50000 == pytest.approx(passes, abs=5e-4)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2_000_000), st.integers(1, 12), PERCENT)
@example(50000, 5, 90)  # in floating point, 50000 * (1 - 0.9) / 5 is below 1000
@example(100, 1, 29)  # and 100 * 0.29 below 29
@example(3, 4, 10)  # nothing would be left
def test_linear(size, rounds, percent):
    counts = keep_counts(size, rounds, percent / 100)
    assert counts == naive_linear(size, rounds, percent)
    # no further from the official loop than its rounding goes
    assert all(0 <= b - a < rounds for a, b in zip(counts[:-1], official_linear(size, rounds, percent), strict=False))


def test_the_final_ratio_is_reached_in_any_number_of_rounds():
    assert keep_counts(200, 99, 0.7)[-1] == keep_counts(200, 40, 0.7)[-1] == 140


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2_000_000), st.integers(1, 12), PERCENT)
def test_geometric_shrinks_by_the_same_factor(size, rounds, percent):
    counts = keep_counts(size, rounds, percent / 100, 'geometric')
    factor = (percent / 100) ** (1 / rounds)
    for r, count in enumerate(counts, 1):
        assert count == pytest.approx(max(size * factor**r, 1), abs=0.501)
    assert counts[-1] == max(round(size * (percent / 100)), 1)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2_000_000), st.lists(PERCENT, min_size=1, max_size=8))
def test_given_ratios(size, percents):
    percents.sort(reverse=True)
    counts = keep_counts(size, len(percents), 0.5, tuple(p / 100 for p in percents))
    assert counts == [max(int(Fraction(p, 100) * size), 1) for p in percents]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 500), st.integers(1, 9), st.floats(0, 1, exclude_min=True))
@pytest.mark.parametrize('schedule', ['linear', 'geometric'])
def test_never_more_than_before_and_never_none(schedule, size, rounds, ratio):
    counts = keep_counts(size, rounds, ratio, schedule)
    assert len(counts) == rounds
    assert size >= counts[0]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 1


@pytest.mark.parametrize('schedule', ['linear', 'geometric', [1.0, 1]])
def test_nothing_is_dropped(schedule):
    assert keep_counts(7, 2, 1.0, schedule) == [7, 7]


@pytest.mark.parametrize('ratio', [0, -0.1, 1.01, nan, '0.7', None, True])
def test_bad_ratios(ratio):
    with pytest.raises(ValueError, match=r'final_ratio .* expected a number above 0 and at most 1'):
        keep_counts(10, 2, ratio)
    with pytest.raises(ValueError, match=r'a ratio of schedule .* expected a number above 0 and at most 1'):
        keep_counts(10, 1, 0.7, [ratio])


@pytest.mark.parametrize(('size', 'rounds'), [(0, 1), (1, 0), (2.0, 1), (1, None)])
def test_bad_numbers(size, rounds):
    with pytest.raises(ValueError, match='expected whole numbers > 0'):
        keep_counts(size, rounds, 0.7)


@pytest.mark.parametrize('schedule', [[], [0.9], [0.9, 0.8, 0.7], [0.8, 0.9]])
def test_ratios_that_do_not_fit(schedule):
    with pytest.raises(ValueError, match='expected 2 ratios, one for each round, none above the one before'):
        keep_counts(10, 2, 0.7, schedule)


@pytest.mark.parametrize(('schedule', 'error'), [('cosine', ValueError), (0.7, TypeError), (None, TypeError)])
def test_unknown_schedules(schedule, error):
    with pytest.raises(error, match="expected 'linear', 'geometric' or a list of ratios"):
        keep_counts(10, 2, 0.7, schedule)
