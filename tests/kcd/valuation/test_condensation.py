from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.kcd.valuation import Condensation, condense, keep_counts, rank

TIED = st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0, inf])


def naive_condense(order: list[int], keep: int, previous: int, epsilon_max: float) -> list[list[float]]:
    """One point after the other."""
    kept, lost = order[:keep], order[keep:previous]
    high: list[float] = []
    low: list[float] = []
    partners: list[float] = []
    epsilon: list[float] = []
    hosts = min(len(lost), keep) if epsilon_max else 0
    for place, sample in enumerate(kept):
        if place < keep - hosts:
            high.append(sample)
        else:
            partners.append(lost[len(low)])
            epsilon.append(epsilon_max * len(low) / hosts)
            low.append(sample)
    return [high, low, [sample for sample in order if sample not in kept], partners, epsilon]


def parts(made: Condensation) -> list[list[float]]:
    return [part.tolist() for part in (made.high, made.low, made.dropped, made.partners, made.epsilon)]


def test_by_hand():
    # ten ranked points, seven were kept and five are to be: K_0 = (5, 6) goes into the hosts (3, 4)
    made = condense(np.arange(10), keep=5, previous=7, epsilon_max=0.3)
    assert parts(made)[:4] == [[0, 1, 2], [3, 4], [5, 6, 7, 8, 9], [5, 6]]
    assert made.epsilon.tolist() == pytest.approx([0, 0.15])


def test_epsilon_by_hand():
    epsilon = condense(np.arange(15), keep=10, previous=15, epsilon_max=0.3).epsilon
    assert epsilon.dtype == np.float32
    assert epsilon.tolist() == pytest.approx([0, 0.06, 0.12, 0.18, 0.24])


def test_too_few_hosts():
    made = condense(np.arange(10), keep=3, previous=10, epsilon_max=0.3)
    assert parts(made)[:4] == [[], [0, 1, 2], [3, 4, 5, 6, 7, 8, 9], [3, 4, 5]]


@pytest.mark.parametrize(('previous', 'epsilon_max'), [(4, 0.3), (6, 0.0), (6, 0)])
def test_nothing_to_mix(previous, epsilon_max):
    # in the official code, nothing dropped makes the slice [-0:], everything
    made = condense(np.arange(6), 4, previous, epsilon_max)
    assert parts(made) == [[0, 1, 2, 3], [], [4, 5], [], []]
    assert made.epsilon.dtype == np.float32


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[int], int, int, float]:
    size = draw(st.integers(1, 25))
    previous = draw(st.integers(1, size))
    order = draw(st.permutations(range(100, 100 + size)))
    return order, draw(st.integers(1, previous)), previous, draw(st.floats(0, 1))


@settings(deadline=None)
@given(calls())
def test_any_call_gives_what_the_loop_gives(call):
    order, *numbers = call
    made = parts(condense(np.array(order, np.int32), *numbers))
    expected = naive_condense(order, *numbers)
    assert made[:4] == expected[:4]
    assert made[4] == pytest.approx(expected[4], rel=1e-6, abs=1e-40)


@st.composite
def trainings(draw: st.DrawFn) -> tuple[int, list[int]]:
    """A size, and how many are kept after each round."""
    size, rounds = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    ratios = st.floats(0.01, 1)
    given_ratios = st.lists(ratios, min_size=rounds, max_size=rounds).map(lambda r: sorted(r, reverse=True))
    schedule = draw(st.one_of(st.sampled_from(['linear', 'geometric']), given_ratios))
    return size, keep_counts(size, rounds, draw(ratios), schedule)


@pytest.mark.parametrize('rank_over', ['all', 'kept'])
@given(training=trainings(), data=st.data())
@settings(deadline=None, max_examples=60)
def test_each_round_parts_the_whole(rank_over, training, data):
    size, counts = training
    kept = np.arange(size)
    for keep in counts:
        previous = len(kept)
        scores = np.array(data.draw(st.lists(TIED, min_size=size, max_size=size)))
        order = rank(scores) if rank_over == 'all' else kept[rank(scores[kept])]
        made = condense(order, keep, previous, epsilon_max=0.3)

        ranked = range(size) if rank_over == 'all' else kept.tolist()
        high, low, dropped, partners, epsilon = parts(made)
        assert sorted(high + low + dropped) == sorted(ranked)
        assert len(high + low) == keep
        assert len(low) == len(partners) == len(epsilon) == min(previous - keep, keep)
        assert set(partners) <= set(dropped)
        assert len(set(partners)) == len(partners)
        assert all(0 <= e < 0.3 for e in epsilon)
        assert epsilon == sorted(epsilon)
        kept = np.sort(np.concatenate([made.high, made.low]))
        assert scores[kept].min() >= scores[made.dropped].max(initial=-inf)


@pytest.mark.parametrize(('keep', 'previous'), [(0, 3), (3, 2), (2, 6), (-1, 3)])
def test_bad_counts(keep, previous):
    with pytest.raises(ValueError, match=r'expected one row .* 1 <= keep <= previous <= M'):
        condense(np.arange(5), keep, previous, 0.3)


@pytest.mark.parametrize('epsilon_max', [-0.1, 1.1, nan])
def test_bad_epsilon(epsilon_max):
    with pytest.raises(ValueError, match='expected a number from 0 to 1'):
        condense(np.arange(5), 2, 4, epsilon_max)


def test_bad_orders():
    with pytest.raises(ValueError, match='expected one row'):
        condense(np.zeros((5, 1), int), 2, 4, 0.3)
    with pytest.raises(TypeError, match='expected sample numbers'):
        condense(np.zeros(5), 2, 4, 0.3)  # type: ignore[arg-type]
