"""The quick parts of the campaign: some of each table here, all of it by `tools/reliability.py`."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.helpers import parse
from tests.reliability import fuzz, hostile, mistakes, teacher
from tests.reliability.attempt import Attempt
from tests.reliability.case import Case
from tests.reliability.mistakes import judge
from tests.reliability.record import Record
from tests.reliability.watched import watched
from tests.reliability.wrong_inputs import OTHERS_WORDS, TABLE
from tests.reliability.wrong_inputs import Wrong as Input

pytestmark = pytest.mark.openmmlab
#: Runs for seconds stay with the command.
SLOW = ('store', 'of_fitnet', 'of_crd', 'locked')
QUICK = [f'{w.kind}: {w.what}' for w in TABLE if w.made not in SLOW and f'{w.kind}: {w.what}' not in OTHERS_WORDS]
WRONG = ['another normalisation', 'blue for red (BGR)', 'averaged and plain weights mixed up', 'another stride',
         'stale image shapes, with padding of its own', 'exchanged while the run was stopped']  # fmt: skip
HOSTILE = [name for name in hostile.FILES if 'store' not in name or 'link' in name or '2^50' in name]


def case(part, name):
    return next(case for case in part.cases() if case.name == name)


def test_there_are_as_many_as_said():
    assert len(TABLE) >= 60
    assert len({(w.kind, w.what) for w in TABLE}) == len(TABLE)
    assert len(teacher.WAYS) >= 15
    assert len(hostile.FILES) >= 10
    assert all(wrong.says for wrong in TABLE)


@pytest.mark.parametrize('name', QUICK[::3])
def test_a_wrong_input_is_told_before_the_first_step(tmp_path, name):
    found = case(mistakes, name).run(tmp_path)
    assert found['verdict'] == 'fine', found


@pytest.mark.parametrize('name', WRONG)
def test_a_wrong_teacher_is_seen(tmp_path, name):
    found = case(teacher, name).run(tmp_path)
    assert found['verdict'] == 'fine', found


@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_file_does_nothing(tmp_path, name):
    found = case(hostile, name).run(tmp_path)
    assert found['verdict'] == 'fine', found


@pytest.mark.parametrize('name', list(fuzz.TARGETS))
def test_random_input_is_told_or_taken(tmp_path, name):
    found = fuzz.run(name, tmp_path, 100)
    assert found['verdict'] == 'fine', found
    assert found['told']
    assert found['taken']


def test_fuzzing_finds(tmp_path, monkeypatch):
    def broken(drawn):
        raise KeyError('x')

    monkeypatch.setitem(fuzz.TARGETS, 'through', (broken, fuzz.TARGETS['through'][1]))
    assert 'KeyError' in fuzz.run('through', tmp_path, 10)['verdict']


def test_what_is_judged():
    def judged(error, updates=0):
        done = Attempt(error, '', updates, '')
        return judge(Input('config', 'x', says=('a=1 given', 'expected 2')), done, done.said)

    assert judged(ValueError('a=1 given, expected 2')) == 'fine'
    assert 'expected 2' in judged(ValueError('a=1 given'))
    assert 'late' in judged(ValueError('a=1 given, expected 2'), 3)
    assert 'KeyError' in judged(KeyError('a=1 given, expected 2'))
    assert judged(None) == 'not refused'


def test_who_watches_sees(tmp_path):
    inside, outside = tmp_path / 'a', tmp_path / 'b'
    inside.mkdir()
    with watched(inside) as happened:
        (inside / 'x').write_text('1')
        assert not happened
        outside.write_text('1')
        outside.rename(tmp_path / 'c')
        subprocess.run(['true'], check=True)
        os.system('true')
    assert any('open' in event and event.endswith('/b') for event in happened)
    for words in ('os.rename', 'subprocess.Popen', 'os.system'):
        assert any(words in event for event in happened), happened
    seen = len(happened)
    (tmp_path / 'd').write_text('1')
    assert len(happened) == seen


def test_a_campaign_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    from tests.reliability import campaign

    ran = []

    def good(folder: Path):
        ran.append(folder)
        return {'verdict': 'fine'}

    def bad(folder: Path):
        raise OSError('no')

    monkeypatch.setattr(campaign, 'no_layout', lambda _: None)
    monkeypatch.setattr(fuzz, 'cases', lambda: [Case('a', good), Case('b', bad)])
    path = tmp_path / 'found.json'
    assert campaign.campaign(['fuzz'], Record(path)) == ["fuzz: b: broken: OSError('no')"]
    assert campaign.campaign(['fuzz'], Record(path)) == ["fuzz: b: broken: OSError('no')"]
    assert len(ran) == 1
    assert not ran[0].exists()
    assert 'fuzz 2 of 2: b' in capsys.readouterr().out
    campaign.campaign(['fuzz'], Record(path), again=True)
    assert len(ran) == 2


def test_arguments():
    assert parse('reliability.py', 'kill', '--moments', 3).moments == 3
    for wrong in (['kil'], ['--moments', '0']):
        with pytest.raises(SystemExit):
            parse('reliability.py', *wrong)
