import pytest

from mmkd_plugin.schedule import Schedule


def test_default_is_always_one():
    schedule = Schedule()
    assert schedule.constant
    assert {schedule.factor(e, i) for e in range(3) for i in range(3)} == {1.0}


def test_published_warmup_counts_epochs_from_one():
    # mdistiller: min(epoch / 20, 1) with epoch = 1, 2, ...
    schedule = Schedule(warmup=20)
    assert [schedule.factor(epoch - 1, 0) for epoch in (1, 2, 10, 20, 21)] == [0.05, 0.1, 0.5, 1.0, 1.0]


def test_interval_by_iteration():
    schedule = Schedule(begin=2, end=4, by_epoch=False)
    assert [schedule.factor(0, i) for i in range(5)] == [0, 0, 1, 1, 0]
    assert not schedule.constant


@pytest.mark.parametrize('kwargs', [{'begin': -1}, {'warmup': -1}, {'begin': 3, 'end': 3}, {'end': 0}])
def test_bad_numbers(kwargs):
    with pytest.raises(ValueError, match='expected begin >= 0'):
        Schedule(**kwargs)
