"""What configs and command lines give is what it says, or an error."""

import math

import pytest

from mmkd_plugin.options import check_bool, check_mapping, check_number, check_whole


@pytest.mark.parametrize('value', ['no', 'False', 'true', 0, 1, None, [], 'True'])
def test_a_boolean_is_a_boolean(value):
    with pytest.raises(ValueError, match=r'^teacher: untrained=.* given, expected True or False$'):
        check_bool(value, 'teacher: untrained')


def test_booleans_pass():
    assert check_bool(True, 'x') is True
    assert check_bool(False, 'x') is False


@pytest.mark.parametrize('value', ['0.03', None, True, math.nan, math.inf, -0.1, [1], {'a': 1}])
def test_a_number_is_a_finite_number(value):
    with pytest.raises(ValueError, match=r'^alpha=.* given, expected a finite number >= 0$'):
        check_number(value, 'alpha')


def test_numbers_in_range():
    assert check_number(3, 'x') == 3.0
    assert isinstance(check_number(3, 'x'), float)
    assert check_number(1, 'x', 0, 1) == 1
    with pytest.raises(ValueError, match='expected a finite number >= 0 and <= 1'):
        check_number(1.1, 'x', 0, 1)
    with pytest.raises(ValueError, match='expected a finite number > 0'):
        check_number(0, 'x', above=True)


@pytest.mark.parametrize('value', ['3', 2.0, None, True, -1])
def test_a_whole_number(value):
    with pytest.raises(ValueError, match=r'^begin=.* given, expected a whole number >= 0$'):
        check_whole(value, 'begin')


def test_mappings():
    assert check_mapping({'a': 1}, 'x', 'dict(a=1)') == {'a': 1}
    for wrong in (None, 3, [('a', 1)], {3: 1}):
        with pytest.raises(ValueError, match=r'given, expected a dictionary such as dict\(a=1\)'):
            check_mapping(wrong, 'x', 'dict(a=1)')
