import pytest

from mmkd_plugin.distillation.schedule import Schedule, check_schedules
from mmkd_plugin.facts import Progress


def test_default_is_always_one():
    schedule = Schedule()
    assert schedule.constant
    assert {schedule.factor(Progress(e, i)) for e in range(3) for i in range(3)} == {1.0}


def test_published_warmup_counts_epochs_from_one():
    # mdistiller: min(epoch / 20, 1) with epoch = 1, 2, ...
    schedule = Schedule(warmup=20)
    assert [schedule.factor(Progress(epoch - 1)) for epoch in (1, 2, 10, 20, 21)] == [0.05, 0.1, 0.5, 1.0, 1.0]


def test_interval_by_iteration():
    schedule = Schedule(begin=2, end=4, by_epoch=False)
    assert [schedule.factor(Progress(0, i)) for i in range(5)] == [0, 0, 1, 1, 0]
    assert not schedule.constant


@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        ({'begin': -1}, 'begin=-1 given, expected a whole number'),
        ({'warmup': -1}, 'warmup=-1 given'),
        ({'begin': 3, 'end': 3}, 'expected end > begin'),
        ({'end': 0}, 'expected end > begin'),
        ({'begin': '5'}, "begin='5' given"),
        ({'begin': True}, 'begin=True given'),
        ({'end': 2.5}, r'end=2\.5 given'),
        ({'warmup': None}, 'warmup=None given'),
        ({'by_epoch': 'no'}, "by_epoch='no' given, expected True or False"),
    ],
)
def test_bad_options(kwargs, match):
    with pytest.raises(ValueError, match=match):
        Schedule(**kwargs)


ALWAYS = ('task', Schedule())


@pytest.mark.parametrize(
    ('schedule', 'epochs', 'iterations', 'match'),
    [
        (Schedule(begin=3), 3, 30, r'loss_a loss begins at epoch 3 \(from 0\), and this run has 3'),
        (Schedule(begin=30, by_epoch=False), 3, 30, r'begins at iteration 30 \(from 0\), and this run has 30'),
        (Schedule(begin=1), 1, 30, r'begins at epoch 1 \(from 0\), and this run has 1'),
    ],
)
def test_a_schedule_that_never_counts(schedule, epochs, iterations, match):
    with pytest.raises(ValueError, match=match):
        check_schedules([('loss_a', schedule), ALWAYS], Progress(0, 0, epochs, iterations))


@pytest.mark.parametrize('schedule', [Schedule(begin=1), Schedule(warmup=20), Schedule(end=30)])
def test_epochs_in_an_iteration_based_run(schedule):
    with pytest.raises(ValueError, match=r'counts epochs, and this run is iteration-based.*by_epoch=False'):
        check_schedules([('loss_a', schedule), ALWAYS], Progress(0, 0, 1, 90), iteration_based=True)
    check_schedules(
        [('loss_a', Schedule(begin=1, by_epoch=False)), ALWAYS], Progress(0, 0, 1, 90), iteration_based=True
    )


def test_a_short_try_of_a_long_recipe_goes_on_with_a_word(monkeypatch):
    from mmkd_plugin.distillation import schedule

    said: list[str] = []
    monkeypatch.setattr(schedule, 'print_log', lambda text, *_: said.append(text))
    check_schedules([('loss_a', Schedule(warmup=20)), ALWAYS], Progress(0, 0, 1, 90))
    assert 'warms up over 20 epochs, and this run has 1. If it is iteration-based, count iterations' in said[0]


@pytest.mark.parametrize(
    'schedule',
    [Schedule(), Schedule(begin=2), Schedule(begin=29, by_epoch=False), Schedule(end=30), Schedule(warmup=3)],
)
def test_schedules_that_count(schedule):
    check_schedules([('loss_a', schedule), ALWAYS], Progress(0, 0, 3, 30))


def test_a_gap_in_which_nothing_trains():
    parts = [('loss_a', Schedule(end=2)), ('loss_b', Schedule(begin=3)), ('task', Schedule(begin=4))]
    with pytest.raises(ValueError, match='from epoch 2 on every loss is off'):
        check_schedules(parts, Progress(0, 0, 9, 90))
    check_schedules([parts[0], ('loss_b', Schedule(begin=2)), parts[2]], Progress(0, 0, 9, 90))
    by_iteration = [('loss_a', Schedule(end=20, by_epoch=False)), ('task', Schedule(begin=30, by_epoch=False))]
    with pytest.raises(ValueError, match='from iteration 20 on every loss is off'):
        check_schedules(by_iteration, Progress(0, 0, 1, 90))


CURVES = {
    'linear': [1.0, 0.75, 0.5, 0.25, 0.0, 0.0],
    'cosine': [1.0, 0.853553, 0.5, 0.146447, 0.0, 0.0],  # (1 + cos(pi k / 4)) / 2
}


@pytest.mark.parametrize('curve', CURVES)
def test_a_decay_follows_its_curve_to_zero_and_is_off_there(curve):
    schedule = Schedule(begin=1, decay=4, curve=curve)
    assert [schedule.factor(Progress(t)) for t in range(1, 7)] == pytest.approx(CURVES[curve], abs=1e-6)
    assert schedule.factor(Progress(0)) == 0
    assert schedule.phased
    assert not schedule.constant


def test_the_decay_of_information_flow():
    # methods 20: alpha * gamma ** k with alpha = 100, gamma = 0.7 is 100, 70, 49
    schedule = Schedule(decay=50, final=0.7**50, curve='exponential')
    assert [100 * schedule.factor(Progress(k)) for k in range(3)] == pytest.approx([100, 70, 49])
    assert not schedule.phased


def test_a_rise_is_the_curve_backwards_and_a_decay_follows_it():
    schedule = Schedule(warmup=4, decay=2, final=0.5, curve='cosine')
    rise = [0.146447, 0.5, 0.853553, 1.0]
    assert [schedule.factor(Progress(t)) for t in range(8)] == pytest.approx([*rise, 1.0, 0.75, 0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        ({'curve': 'square', 'decay': 2}, "curve='square' given, expected one of 'linear', 'cosine', 'exponential'"),
        ({'curve': 'exponential', 'decay': 2}, 'never reaches 0'),
        ({'final': 0.5}, r'final=0\.5 given without decay'),
        ({'decay': 2, 'final': 2}, 'final=2 given'),
        ({'decay': 1.5}, r'decay=1\.5 given'),
    ],
)
def test_bad_curves(kwargs, match):
    with pytest.raises(ValueError, match=match):
        Schedule(**kwargs)


def test_a_decay_to_zero_may_leave_a_gap():
    parts = [('loss_a', Schedule(decay=3)), ('task', Schedule(begin=4))]
    with pytest.raises(ValueError, match='from epoch 3 on every loss is off'):
        check_schedules(parts, Progress(0, 0, 9, 90))
