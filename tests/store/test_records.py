"""Records are whole, or not there: whatever was killed, torn or flipped."""

import os
import resource
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.store import Header, Records, Whole
from mmkd_plugin.store.records import size


def header(entries=50, values=10):
    return Header({}, entries, (1, 8, 8), {'fc': Whole((values,), 'float32')}, {})


def make(path, entries=50, values=10):
    path.mkdir(exist_ok=True)
    return Records(path, header(entries, values))


def content(records, view, indices):
    """What a record of a sample and view must be."""
    made = np.zeros(len(indices), records.layout)
    shape = made['fc']['values'].shape[1]
    made['fc']['values'] = np.asarray(indices)[:, None] * 1000.0 + view + np.arange(shape) / 100
    return made


def test_what_is_written_is_read(tmp_path):
    records, indices = make(tmp_path), np.array([7, 3, 49])
    records.write(2, indices, content(records, 2, indices))
    got, whole = make(tmp_path).read(2, np.array([3, 4, 7, 49]))
    assert whole.tolist() == [True, False, True, True]
    assert np.array_equal(got[whole], content(records, 2, [3, 7, 49]))
    assert records.views() == [2]
    assert records.written(2).nonzero()[0].tolist() == [3, 7, 49]


def test_a_view_that_nobody_began(tmp_path):
    records = make(tmp_path)
    assert not records.read(0, np.arange(5))[1].any()
    assert not records.written(0).any()
    assert not records.complete(1)


def test_complete(tmp_path):
    records = make(tmp_path)
    for view in range(2):
        records.write(view, np.arange(50), content(records, view, np.arange(50)))
    assert records.complete(2)
    assert not records.complete(3)
    records.forget(1, np.array([4]))
    assert not records.complete(2)


def test_values_without_their_checksum_are_not_written(tmp_path):
    """As a writer leaves them that is killed in between."""
    records, indices = make(tmp_path), np.arange(3)
    records._put(0, 0, indices, content(records, 0, indices))
    records.write(0, np.array([9]), content(records, 0, [9]))
    assert records.read(0, indices)[1].tolist() == [False] * 3


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_flipped_bit_is_found(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('flipped')
    records, indices = make(path), np.arange(50)
    records.write(0, indices, content(records, 0, indices))
    file = records.files(0)[data.draw(st.integers(0, 1))]
    raw = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(raw)
    hit = place // (4 if file.suffix == '.crc' else 40)
    again = make(path)
    assert np.flatnonzero(~again.read(0, indices)[1]).tolist() == [hit]
    shutil.rmtree(path)


def test_a_record_of_another_sample_or_view_is_none(tmp_path):
    records, indices = make(tmp_path), np.arange(4)
    records.write(0, indices, content(records, 0, indices))
    values, sums = (file.read_bytes() for file in records.files(0))
    for file, raw in zip(records.files(1), (values, sums), strict=True):
        file.write_bytes(raw)
    assert not records.read(1, indices)[1].any()
    records.files(0)[0].write_bytes(values[40:80] + values[:40] + values[80:])
    records.files(0)[1].write_bytes(sums[4:8] + sums[:4] + sums[8:])
    assert make(tmp_path).read(0, indices)[1].tolist() == [False, False, True, True]


def test_damaged_ones_are_listed(tmp_path):
    records = make(tmp_path)
    records.write(0, np.arange(50), content(records, 0, np.arange(50)))
    with records.files(0)[0].open('r+b') as file:
        file.seek(13 * 40)
        file.write(b'?')
    assert make(tmp_path).torn(0, chunk=8).tolist() == [13]


def test_a_file_of_another_length_is_refused(tmp_path):
    records = make(tmp_path)
    records.write(0, np.arange(2), content(records, 0, [0, 1]))
    with pytest.raises(ValueError, match='expected'):
        make(tmp_path, entries=20).read(0, np.arange(2))


def test_a_store_that_cannot_be_written_to(tmp_path, monkeypatch):
    records = make(tmp_path)
    monkeypatch.setattr(os, 'pwrite', lambda handle, data, offset: len(data) - 1)
    with pytest.raises(RuntimeError, match='lacks records and cannot be written to: the disk is full'):
        records.write(0, np.arange(2), content(records, 0, [0, 1]))


def test_the_room_is_looked_at_before(tmp_path, monkeypatch):
    records = make(tmp_path)
    assert records.check_room(3) == '44 bytes for a sample and view, 50 samples x 3 views: 6.6 kB'
    records.write(0, np.arange(50), content(records, 0, np.arange(50)))
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=4500))
    records.check_room(3)  # 2.2 kB are there
    with pytest.raises(OSError, match=r'needs 44 bytes .* 8\.8 kB, of which 2\.2 kB are there, .* has 4\.5 kB left'):
        records.check_room(4)


def test_a_link_is_not_written_through(tmp_path):
    """As in a store that somebody else made."""
    precious = tmp_path / 'precious'
    precious.write_bytes(b'precious')
    records = make(tmp_path)
    records.files(1)[0].symlink_to(precious)
    records.check_room(1)
    with pytest.raises(OSError, match=r"view_0001\.bin' is a link to another file"):
        records.check_room(2)
    with pytest.raises(RuntimeError, match='cannot be written to'):
        records.write(1, np.arange(2), content(records, 1, [0, 1]))
    assert precious.read_bytes() == b'precious'


@pytest.mark.parametrize(('count', 'text'), [(999, '999 B'), (1000, '1.0 kB'), (2.57e10, '25.7 GB'), (3e12, '3.0 TB')])
def test_sizes_in_words(count, text):
    assert size(count) == text


def test_a_million_records_are_opened_at_once(tmp_path):
    """Nothing is read but what is asked for."""
    records = make(tmp_path, entries=10**6, values=1000)
    records.write(0, np.array([999_999]), content(records, 0, [999_999]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    again = make(tmp_path, entries=10**6, values=1000)
    got, whole = again.read(0, np.array([5, 999_999]))
    assert time.perf_counter() - begun < 0.5
    assert whole.tolist() == [False, True]
    assert np.array_equal(got[1:], content(records, 0, [999_999]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB; the file has 4 GB


def fill(path, entries, view, first):
    """Write for ever, in another order each time."""
    records, random = make(path, entries, 500), np.random.default_rng(first)
    while True:
        indices = random.permutation(entries)[:32]
        records.write(view, indices, content(records, view, indices))


@pytest.mark.parametrize('seed', range(3))
def test_killed_writers_leave_no_wrong_record(tmp_path, seed):
    """Two processes write the same records, and are killed somewhere."""
    writers = []
    for first in range(2):
        pid = os.fork()
        if not pid:
            try:
                fill(tmp_path, 200, 0, first)
            finally:
                os._exit(1)
        writers.append(pid)
    time.sleep(0.05 + 0.05 * seed)
    for pid in writers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    records, indices = make(tmp_path, 200, 500), np.arange(200)
    got, whole = records.read(0, indices)
    assert whole.any()
    assert np.array_equal(got[whole], content(records, 0, indices[whole]))
    assert (records.written(0) & ~whole).sum() <= 2, 'more than what each was writing'
