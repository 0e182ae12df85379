"""Which anchor teaches when: by equal stages, at given times, and by what a search chose."""

import pytest
from mmengine.logging import MessageHub

from mmkd_plugin.facts import Progress
from mmkd_plugin.teachers.stages import Greedy, Stages

GREEDY = {'type': 'greedy', 'every': 2, 'threshold': 2.0}


@pytest.mark.parametrize('anchors', [1, 2, 4, 7])
@pytest.mark.parametrize('length', [7, 8, 40, 101])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_equal_stages_rise_cover_all_and_end_on_the_last(anchors, length, by_epoch):
    stages = Stages(anchors, by_epoch=by_epoch)
    times = [Progress(t, -1, length, -1) if by_epoch else Progress(-1, t, -1, length) for t in range(length)]
    numbers = [stages.at(time) for time in times]
    assert numbers == [t * anchors // length for t in range(length)]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(anchors))
    assert numbers[-1] == anchors - 1
    assert stages.begins(length) == [numbers.index(number) for number in range(1, anchors)]


def test_given_times():
    stages = Stages(3, [2, 5])
    assert [stages.at(Progress(t, epochs=8)) for t in range(8)] == [0, 0, 1, 1, 1, 2, 2, 2]
    assert [stages.at(Progress(t)) for t in (0, 2, 9)] == [0, 1, 2]  # where nobody says how long the run is
    assert stages.begins(8) == [2, 5]
    assert Stages(3, [20, 50], by_epoch=False).at(Progress(0, 49, 1, 60)) == 1


def test_what_was_chosen_is_in_the_message_hub():
    stages = Stages(4, GREEDY, name='way')
    assert stages.at(Progress(3, epochs=8)) == 0
    stages.keep(2, 1)
    stages.keep(4, 3)
    Stages(4, GREEDY, name='other').keep(2, 2)
    assert [stages.at(Progress(t, epochs=8)) for t in range(8)] == [0, 0, 1, 1, 3, 3, 3, 3]
    stages.keep(2, 2)  # chosen anew by a run that was resumed before that epoch
    assert MessageHub.get_current_instance().runtime_info['distill_route'] == {'way': [[2, 2]], 'other': [[2, 2]]}
    assert stages.begins(7) == [2, 4, 6]


@pytest.mark.parametrize(
    ('current', 'gaps', 'chosen'),
    [
        (0, [0.5, 0.6, 0.9, 1.5], 2),  # the furthest below 2 * 0.5
        (0, [0.5, 1.2, 0.9, 1.5], 2),  # whatever lies between
        (0, [0.5, 1.0, 1.5], 1),  # none is below: the next
        (2, [0.5, 0.4, 0.3], 4),
        (3, [0.5, 0.7], 4),
        (0, [0.0, 0.0, 0.1], 1),
    ],
)
def test_the_search_takes_the_furthest_below_the_threshold(current, gaps, chosen):
    assert Greedy(2, 2.0).choose(current, gaps) == chosen


@pytest.mark.parametrize(
    ('anchors', 'switch', 'match'),
    [
        (3, [5], r'a list of 2 epochs > 0 that rise: when each of the 3 anchors but the first begins'),
        (3, [5, 5], 'that rise'),
        (3, [9, 5], 'that rise'),
        (3, [0, 5], 'that rise'),
        (3, [5, True], 'that rise'),
        (3, [5, 7.5], 'that rise'),
        (3, 5, r'switch=5 given'),
        (3, 'greedy', "switch='greedy' given"),
        (3, {'type': 'greedy'}, r"expected dict\(type='greedy', every=5, threshold=2.0\)"),
        (3, {**GREEDY, 'evry': 1}, r"expected dict\(type='greedy'"),
        (3, {**GREEDY, 'every': 0}, r'way \(Route\): switch: every=0 given'),
        (3, {**GREEDY, 'threshold': 0}, 'switch: threshold=0 given'),
        (3, {**GREEDY, 'samples': 'all'}, "switch: samples='all' given"),
    ],
)
def test_mistakes(anchors, switch, match):
    with pytest.raises(ValueError, match=match):
        Stages(anchors, switch, name='way')


def test_runs_that_are_too_short():
    with pytest.raises(ValueError, match=r'way.*: 4 anchors given, and this run has 3 epochs'):
        Stages(4, name='way').at(Progress(0, epochs=3))
    with pytest.raises(ValueError, match=r'1 epoch. If it is iteration-based, count iterations, with by_epoch=False'):
        Stages(2).at(Progress(0, 0, 1, 900))
    with pytest.raises(ValueError, match=r'switch=\[2, 8\] given, and this run has 8 epochs'):
        Stages(3, [2, 8]).at(Progress(0, epochs=8))
    with pytest.raises(ValueError, match='and this run has 2 epochs'):
        Stages(3, GREEDY).at(Progress(0, epochs=2))
    with pytest.raises(RuntimeError, match=r"need the run's, and nobody says it: give switch="):
        Stages(3).at(Progress())
    with pytest.raises(ValueError, match='a search counts epochs, and by_epoch=False is given'):
        Stages(3, GREEDY, by_epoch=False)
    with pytest.raises(ValueError, match="by_epoch='no' given"):
        Stages(3, by_epoch='no')  # type: ignore[arg-type]
