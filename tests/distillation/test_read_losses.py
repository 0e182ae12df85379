import pytest

from mmkd_plugin.distillation.read_losses import check_losses, read_on, read_task_loss
from mmkd_plugin.facts import Progress


def written(on, **options):
    return {side: [str(tap) for tap in taps] for side, taps in read_on(on, 'loss_x', **options).items()}


def test_one_source():
    assert written('a.b') == {'student': ['a.b'], 'teacher': ['a.b']}
    mixed = ['a', {'student': 'b', 'teacher': 'c:input'}]
    assert written(mixed) == {'student': ['a', 'b'], 'teacher': ['a', 'c:input']}
    lists = {'student': ['a', 'b'], 'teacher': ['c', 'd[1]']}
    assert written(lists) == {'student': ['a', 'b'], 'teacher': ['c', 'd[1]']}
    assert written({'student': 'a', 'teacher': ['b', 'c@1']}) == {'student': ['a'], 'teacher': ['b', 'c@1']}


def test_named_sources():
    two = {'sources': ['big', 'old']}
    assert written('a', teacher='old', **two) == {'student': ['a'], 'old': ['a']}
    assert written({'student': 'a', 'big': 'b'}, **two) == {'student': ['a'], 'big': ['b']}
    # `teacher` is the one that is meant
    assert written({'student': 'a', 'teacher': 'b'}, teacher='old', **two) == {'student': ['a'], 'old': ['b']}


def test_other_sides():
    two = {'sources': ['big', 'old']}
    several = ('student', 'teachers')
    assert written('a', sides=several, **two) == {'student': ['a'], 'big': ['a'], 'old': ['a']}
    assert written({'student': 'a', 'old': 'b'}, sides=several, **two) == {'student': ['a'], 'old': ['b']}
    assert written(['a', 'b'], sides=('student',), sources=[]) == {'student': ['a', 'b']}
    assert written('a', sides=('teacher',)) == {'teacher': ['a']}
    assert written({'teacher': 'a'}, sides=('teacher',)) == {'teacher': ['a']}


def test_a_peer_learns_from_the_student():
    assert written('a', sources=['peer'], learner='peer') == {'peer': ['a'], 'student': ['a']}
    three = {'sources': ['peer', 'other'], 'learner': 'peer'}
    assert written({'peer': 'a', 'other': 'b'}, **three) == {'peer': ['a'], 'other': ['b']}
    with pytest.raises(ValueError, match=r"expected one of \['student', 'other'\]"):
        written('a', **three)


def test_lists_in_lists():
    assert written([['a', 'b'], 'c']) == {'student': ['a', 'b', 'c'], 'teacher': ['a', 'b', 'c']}
    unequal = [{'student': 'a', 'teacher': ['b', 'c']}, {'student': ['d', 'e'], 'teacher': 'f'}]
    with pytest.raises(ValueError, match='has on='):
        written(unequal)  # or else d would be compared with c


@pytest.mark.parametrize('on', [None, [], {'student': 'a'}, {'student': 'a', 'teacher': []}, 3, {}, ['a', 3]])
def test_bad_taps(on):
    with pytest.raises(ValueError, match=r"losses\['loss_x'\] has on="):
        written(on)


@pytest.mark.parametrize(
    ('on', 'options', 'match'),
    [
        ('a', {'sources': ['x', 'y']}, r"names teacher=None, expected one of \['x', 'y'\]"),
        ('a', {'teacher': 'z'}, r"names teacher='z', expected one of \['teacher'\]"),
        ('a', {'sources': []}, r'reads a teacher, and there is none: give either teacher='),
        ({'student': 'a', 'techer': 'b'}, {}, r'on=dict\(techer=...\) \(did you mean teacher'),
        (
            {'studnet': 'a', 'teacher': 'b'},
            {},
            r"mean student\?\), expected 'student', who learns, and teacher",
        ),
        (
            {'student': 'a', 'y': 'b'},
            {'sources': ['x', 'y'], 'teacher': 'x'},
            r"teacher='x', and on reads \['y'\]",
        ),
        ('a', {'sources': ['teacher', 'y']}, r'names teacher=None, expected one of'),
        (
            {'student': 'a', 'x': 'b', 'y': 'b'},
            {'sources': ['x', 'y']},
            r"reads \['x', 'y'\], and compares student with",
        ),
        ({'student': 'a', 'teacher': 'b'}, {'sides': ('student',)}, r"reads \['teacher'\], and compares student"),
        ({'student': 'a', 'teacher': 'b'}, {'sides': ('teacher',)}, r'has on='),
    ],
)
def test_names_that_are_not_there(on, options, match):
    with pytest.raises(ValueError, match=match):
        written(on, **options)


def test_an_entry_set_to_none_is_dropped():
    assert check_losses({'loss_a': None, 'loss_b': {'type': 'KDLoss'}}) == {'loss_b': {'type': 'KDLoss'}}
    with pytest.raises(ValueError, match='are dropped; to train the plain student use its own config'):
        check_losses({'loss_a': None})


def test_task_loss():
    weight, schedule = read_task_loss({'loss_weight': 0.1, 'schedule': {'begin': 3}})
    assert (weight, schedule.factor(Progress(2)), schedule.factor(Progress(3))) == (0.1, 0.0, 1.0)
    assert read_task_loss(None)[0] == 1.0
    with pytest.raises(ValueError, match=r"unknown keys \['weight'\]"):
        read_task_loss({'weight': 1})
    with pytest.raises(ValueError, match='task_loss: loss_weight=-1 given'):
        read_task_loss({'loss_weight': -1})
    for wrong in (None, '0.1', True):
        with pytest.raises(ValueError, match=r'task_loss: loss_weight=.* given, expected a finite number'):
            read_task_loss({'loss_weight': wrong})
