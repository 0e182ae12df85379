"""KCDHook's options are what they say, or an error when the config is built."""

import re

import pytest

from mmkd_plugin.kcd import KCDHook

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize(
    ('option', 'given', 'expected'),
    [
        ('interval', 0, 'a whole number >= 1'),
        ('interval', True, 'a whole number >= 1'),
        ('interval', 2.5, 'a whole number >= 1'),
        ('interval', '40', 'a whole number >= 1'),
        ('begin', -1, 'a whole number >= 0'),
        ('begin', None, 'a whole number >= 0'),
        ('final_ratio', '0.7', 'a finite number > 0 and <= 1'),
        ('final_ratio', 0, 'a finite number > 0 and <= 1'),
        ('final_ratio', 1.2, 'a finite number > 0 and <= 1'),
        ('alpha', '0.03', 'a finite number >= 0'),
        ('alpha', -1, 'a finite number >= 0'),
        ('alpha', float('nan'), 'a finite number >= 0'),
        ('epsilon_max', None, 'a finite number >= 0 and <= 1'),
        ('epsilon_max', 1.5, 'a finite number >= 0 and <= 1'),
        ('keep_schedule', 'cosine', "'linear', 'geometric' or a list of ratios"),
        ('keep_schedule', None, "'linear', 'geometric' or a list of ratios"),
        ('keep_schedule', [], "'linear', 'geometric' or a list of ratios"),
        ('keep_schedule', 0.7, "'linear', 'geometric' or a list of ratios"),
        ('rank_over', 'some', "one of 'all', 'kept'"),
        ('rank_over', True, "one of 'all', 'kept'"),
        ('mixing', 'cutmix', "one of None, 'convex', 'additive'"),
        ('mixing', False, "one of None, 'convex', 'additive'"),
        ('value', 'age', "one of 'entropy', 'loss', 'kl', 'margin', 'forgetting', 'random'"),
        ('value', ['entropy'], "one of 'entropy', 'loss', "),
        ('dropped_value', 'old', "one of 'last', 'aged', 'pass'"),
        ('dropped_value', None, "one of 'last', 'aged', 'pass'"),
        ('cumulative', 'no', 'True or False'),
        ('official_schedule', 'no', 'True or False'),
        ('table', 'False', 'True or False'),
        ('table', 0, 'True or False'),
        ('logits', 3, "the path of the student's classifier such as 'head.fc'"),
        ('logits', ' ', "the path of the student's classifier such as 'head.fc'"),
    ],
)
def test_told_when_built(option, given, expected):
    with pytest.raises(ValueError, match=re.escape(f'KCDHook: {option}={given!r} given, expected {expected}')):
        KCDHook(**{option: given})


@pytest.mark.parametrize('ratio', ['0.7', 0, 1.1, None, True])
def test_ratios_are_numbers(ratio):
    with pytest.raises(ValueError, match=re.escape(f'KCDHook: keep_schedule[1]={ratio!r} given, expected a finite')):
        KCDHook(keep_schedule=[0.9, ratio])


def test_what_is_allowed():
    hook = KCDHook(final_ratio=1, alpha=0, epsilon_max=1, keep_schedule=(1, 0.5), mixing=None, logits='head.fc[0]')
    assert (hook.final_ratio, hook.alpha, hook.epsilon_max, hook.keep_schedule) == (1.0, 0.0, 1.0, [1.0, 0.5])


@pytest.mark.parametrize(
    ('options', 'why'),
    [
        ({'dropped_value': 'aged', 'value': 'random'}, "='aged' given with value='random', which ranks by no value"),
        ({'dropped_value': 'pass', 'value': 'random'}, "='pass' given with value='random', which ranks by no value"),
        ({'dropped_value': 'aged', 'rank_over': 'kept'}, "given with rank_over='kept', which never ranks a dropped"),
        ({'dropped_value': 'pass', 'rank_over': 'kept'}, "given with rank_over='kept', which never ranks a dropped"),
        ({'dropped_value': 'aged', 'value': 'forgetting'}, "given with value='forgetting', which counts and never"),
    ],
)
def test_options_that_do_not_go_together(options, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        KCDHook(**options)


def test_options_that_do():
    for value in ('entropy', 'loss', 'kl', 'margin'):
        assert KCDHook(value=value, dropped_value='aged').dropped_value == 'aged'
    assert KCDHook(value='forgetting', dropped_value='pass').value == 'forgetting'
    assert KCDHook(value='random', rank_over='kept').rank_over == 'kept'
