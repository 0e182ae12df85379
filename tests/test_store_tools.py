"""`tools/precompute.py` and `tools/store.py`: filled ahead, in parts, after kills; looked at; mended."""

import runpy
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmkd_plugin.store import Header, Records
from tests.end_to_end.helpers import TINY, options
from tests.processes import ROOT, Forked, forked

pytestmark = pytest.mark.openmmlab
PRECOMPUTE, STORE = ROOT / 'tools/precompute.py', ROOT / 'tools/store.py'
CONFIG = ROOT / 'configs/digits/kd_store_resnet.py'


def settings(path: Path, views: int = 2) -> list[str]:
    return options({**TINY, 'model.teacher.store.path': str(path), 'model.teacher.store.views': views})


def records_of(path: Path) -> Records:
    header = Header.of(path)
    assert header is not None
    return Records(path, header)


@pytest.fixture(scope='module')
def filled(tmp_path_factory) -> Path:
    """By two processes, each a part."""
    path = tmp_path_factory.mktemp('tools') / 'store'
    parts = [Forked(PRECOMPUTE, CONFIG, '--part', f'{part}/2', *settings(path)) for part in range(2)]
    for part in parts:
        done = part.wait()
        assert done.returncode == 0, done.stdout[-3000:]
        assert 'teacher: 40 records written in' in done.stdout
    return path


def test_parts_make_a_whole(filled):
    records = records_of(filled)
    assert records.complete(2)
    assert 'nothing was missing' in forked(PRECOMPUTE, CONFIG, *settings(filled)).stdout


def test_what_is_in_it(filled):
    said = forked(STORE, 'info', filled).stdout
    assert '40 samples of 1x28x28' in said
    assert 'head.fc (10,): shifted, float16, 24 bytes' in said
    assert 'view 1    40 of 40 records' in said


def test_a_check_reads_all_and_asks_the_teacher(filled):
    said = forked(STORE, 'check', CONFIG, '--samples', 10, *settings(filled)).stdout
    assert 'teacher: head.fc: 20 records differ by at most' in said
    assert 'all records are whole' in said


def test_damage_is_found_and_pruned(filled, tmp_path):
    records, path = records_of(filled), tmp_path / 'damaged'
    path.mkdir()
    for file in filled.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    with records_of(path).files(1)[0].open('r+b') as file:
        file.seek(5 * records.header.payload + 3)
        file.write(b'\xff')
    checked = forked(STORE, 'check', path, check=False)
    assert checked.returncode == 1
    assert 'damaged records: 1 of view 1' in checked.stdout
    assert '1 damaged records of view 1' in forked(STORE, 'prune', path).stdout
    assert records_of(path).written(1).sum() == 39
    assert 'removed: view 1' in forked(STORE, 'prune', path, '--views', 1).stdout
    assert records_of(path).views() == [0]
    forked(STORE, 'prune', path, '--all')
    assert not path.exists()


def test_a_wrong_value_with_a_right_checksum_is_found(filled, tmp_path):
    """As another teacher would have left it."""
    path = tmp_path / 'wrong'
    path.mkdir()
    for file in filled.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    records, indices = records_of(path), np.arange(40)
    values, _ = records.read(0, indices)
    values['head.fc']['top'] += 1
    records.write(0, indices, values)
    checked = forked(STORE, 'check', CONFIG, *settings(path), check=False)
    assert checked.returncode == 1
    assert 'all records are whole' in checked.stdout


def test_jobs_are_processes(tmp_path):
    done = forked(PRECOMPUTE, CONFIG, '--jobs', 2, *settings(tmp_path / 'store', 1))
    assert records_of(tmp_path / 'store').complete(1), done.stdout


def test_a_killed_fill_goes_on(filled, tmp_path):
    path = tmp_path / 'store'
    process = Forked(PRECOMPUTE, CONFIG, *settings(path))
    deadline = time.monotonic() + 60
    while not (path / 'view_0000.crc').exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert process.returncode == -signal.SIGKILL
    forked(PRECOMPUTE, CONFIG, *settings(path))
    assert records_of(path).complete(2)
    assert (path / 'view_0001.bin').read_bytes() == (filled / 'view_0001.bin').read_bytes()


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('precompute.py', ['none.py'], "config 'none.py' does not exist"),
        ('precompute.py', [CONFIG, '--jobs', 0], '--jobs 0 given'),
        ('precompute.py', [CONFIG, '--part', '2/2'], '--part 2/2 given, expected K/N'),
        ('store.py', ['check', CONFIG, '--samples', 0], '--samples 0 given'),
        ('store.py', ['prune', 'x', '--views', -1], '--views -1 given'),
        ('store.py', ['info', 'nowhere'], "'nowhere' is no knowledge store"),
        ('store.py', ['check', ROOT / 'configs/kd_resnet.py'], 'no teacher has a store'),
    ],
)
def test_mistakes_are_answered(tool, arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [tool])
    with pytest.raises(SystemExit) as told:
        runpy.run_path(str(ROOT / 'tools' / tool))['main']([*map(str, arguments)])
    assert message in f'{told.value}{capsys.readouterr().err}'
