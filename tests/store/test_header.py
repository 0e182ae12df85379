"""A header says what its records belong to, and is believed only whole."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.store import Header, Shifted, StoreOptions, TopK, Whole, differences

IDENTITY = {'seed': 0, 'data': {'digest': 'abc'}, 'pipeline': [['crop', {'padding': 2}], ['pack']]}


def make(**changes):
    forms = {'head.fc': Shifted((10,), 'float16'), 'backbone': Whole((4, 2, 2), 'float16')}
    given = {'identity': IDENTITY, 'entries': 5, 'images': (1, 28, 28), 'forms': forms, 'about': {'classes': None}}
    return Header(**{**given, **changes})


def test_it_comes_back(tmp_path):
    header = make()
    again = Header.from_text(header.to_text(), tmp_path)
    assert again.to_text() == header.to_text()
    assert again.payload == 24 + 32


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_damaged_is_no_header(tmp_path_factory, data):
    path, text = tmp_path_factory.getbasetemp(), make().to_text()
    raw = bytearray(text.encode())
    kind = data.draw(st.sampled_from(['flip', 'cut', 'put', 'noise']))
    place = data.draw(st.integers(0, len(raw) - 1))
    if kind == 'flip':
        raw[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == 'cut':
        del raw[place:]
    elif kind == 'put':
        raw[place:place] = data.draw(st.binary(min_size=1, max_size=20))
    else:
        raw = bytearray(data.draw(st.binary(max_size=200)))
    try:
        header = Header.from_text(bytes(raw), path)
    except ValueError:
        return
    assert header.to_text() == text, 'a header that says something else'


@pytest.mark.parametrize('text', ['[]', '3', 'null', '{}', '"x"', '{"sha256": 1}', '[' * 100_000])
def test_other_json_is_no_header(tmp_path, text):
    with pytest.raises(ValueError, match='damaged'):
        Header.from_text(text, tmp_path)


def test_another_format_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr('mmkd_plugin.store.header.FORMAT', 2)
    text = make().to_text()
    monkeypatch.undo()
    with pytest.raises(ValueError, match='has format 2, expected 1'):
        Header.from_text(text, tmp_path)


@pytest.mark.parametrize(
    'changes',
    [
        {'entries': -1}, {'entries': '5'}, {'entries': True}, {'images': (1, 2.5)}, {'about': []},
        {'identity': {**IDENTITY, 'data': {'entries': 6}}}, {'identity': []},
    ],
)  # fmt: skip
def test_a_right_digest_proves_no_good_will(tmp_path, changes):
    with pytest.raises(ValueError, match='is damaged'):
        Header.from_text(make(**changes).to_text(), tmp_path)


def test_the_first_one_stays(tmp_path):
    first = make().publish(tmp_path / 'store')
    second = make(entries=6).publish(tmp_path / 'store')
    assert (first.entries, second.entries) == (5, 5)
    assert [file.name for file in (tmp_path / 'store').iterdir()] == ['header.json']
    assert Header.of(tmp_path) is None


def test_it_says_what_changed(tmp_path):
    now = json.loads(json.dumps(IDENTITY))
    now['pipeline'][0][1]['padding'] = 4
    now['data'] = {'digest': 'xyz'}
    with pytest.raises(
        ValueError, match=r'(?s)data\.digest: "abc" then, "xyz" now.*pipeline\[0\]\[1\]\.padding: 2 then, 4 n'
    ):
        make().check(now, tmp_path)
    make().check({**IDENTITY, 'pipeline': (('crop', {'padding': 2}), ('pack',))}, tmp_path)  # as JSON has it


@pytest.mark.parametrize(
    ('then', 'now', 'lines'),
    [
        ({'a': 1}, {'a': 1}, []),
        ({'a': 1}, {'b': 1}, ['a: only then: 1', 'b: only now: 1']),
        ([1, 2], [1], [': [1, 2] then, [1] now']),
        ({'a': 1}, {'a': True}, ['a: 1 then, true now']),
        ({'a': [{'b': None}]}, {'a': [{'b': 0}]}, ['a[0].b: null then, 0 now']),
    ],
)
def test_differences(then, now, lines):
    assert list(differences(then, now)) == lines


@pytest.mark.parametrize(
    ('read', 'changes', 'message'),
    [
        ({'neck': None}, {}, "keeps head.fc, backbone, and this run reads 'neck'"),
        (
            {'head.fc': None},
            {'dtype': 'float32'},
            r"\(keep, dtype\) \('all', 'float16'\) of 'head.fc', and this run says",
        ),
        ({'head.fc': None}, {'keep': 3}, 'and this run says'),
    ],
)
def test_a_run_that_reads_something_else(tmp_path, read, changes, message):
    with pytest.raises(ValueError, match=message):
        make().check_read(read, StoreOptions(tmp_path, 2, **changes), (1, 28, 28))


def test_a_run_that_reads_a_part(tmp_path):
    make().check_read({'backbone': None}, StoreOptions(tmp_path, 2), (1, 28, 28))
    with pytest.raises(ValueError, match='images of'):
        make().check_read({'backbone': None}, StoreOptions(tmp_path, 2), (1, 32, 32))


def test_another_temperature(tmp_path):
    header = make(forms={'fc': TopK((10,), 'float16', (1.0, 4.0), 3)})
    options = StoreOptions(tmp_path, 2, keep=3)
    header.check_read({'fc': 4.0}, options, (1, 28, 28))
    with pytest.raises(ValueError, match=r"keeps 'fc' for the temperatures \[1.0, 4.0\], and this run reads it at 2"):
        header.check_read({'fc': 2.0}, options, (1, 28, 28))
