"""Processes with limits, and what is kept of them; on a model that takes no time."""

import json
from multiprocessing import forkserver

import pytest

from mmkd_plugin.support import Limits, Record, walk
from mmkd_plugin.support.walk import summary
from tests import processes  # noqa: F401 (says what the server imports)

ENTRY = {'columns': {'logits': ['works', '']}, 'with': 'a 1, b 2', 'date': '2026-01-31'}


def configs(folder, **texts):
    (folder / 'a').mkdir()
    for name, text in texts.items():
        (folder / f'a/{name}.py').write_text(text)
    return [f'a/{name}.py' for name in texts]


def test_each_has_a_process_and_limits(tmp_path, capfd):
    """A config is Python: it can say anything, crash or hang."""
    names = configs(
        tmp_path,
        nothing='x = 1',
        slow='import time\ntime.sleep(60)',
        large='import time\nx = bytes([1]) * 2**31\ntime.sleep(60)',
        crash="__import__('os').abort()",
        tracker="model = dict(type='ByteTrack', detector=dict())",
        video="model = dict(type='X', data_preprocessor=dict(type='TrackDataPreprocessor'))",
        unknown="model = dict(type='NoSuchDetector')",
    )
    record = Record(tmp_path / 'found.json')
    forkserver.ensure_running()  # that of all tests, with what these want imported
    walk(names, tmp_path, record, tmp_path / 'logs', jobs=7, limits=Limits(5, 1500))
    said = {name[2:-3]: entry['not_run'] for name, entry in Record(record.path).found.items()}
    assert said.pop('unknown').startswith('KeyError')
    assert said == {
        'nothing': 'describes no model',
        'slow': 'takes more than 5 s',
        'large': 'takes more than 1500 MiB',
        'crash': 'the process ended with -6',
        'tracker': 'a tracker around a detector; the detector inside it can be distilled',
        'video': 'trained on videos',
    }
    assert all(entry['with'].startswith('mmkd_plugin ') for entry in record.found.values())
    assert 'a/slow.py: not run: takes more than 5 s (' in capfd.readouterr().out


def test_a_record_is_whole_and_goes_on(tmp_path):
    path = tmp_path / 'found.json'
    Record(path).add('a/b.py', ENTRY)
    Record(path).add('a/a.py', {'not_run': 'why'})
    assert json.loads(path.read_text()) == {'configs': {'a/a.py': {'not_run': 'why'}, 'a/b.py': ENTRY}}
    assert len(path.read_text().splitlines()) == 4
    assert list(Record(path).families()) == ['a']
    assert summary(ENTRY) == 'logits works'
    path.write_text('[]')
    with pytest.raises(ValueError, match=r'found.json is no record of tools/support_matrix.py'):
        Record(path)
