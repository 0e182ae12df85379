"""The table says what the record says."""

import pytest

from mmkd_plugin.support import Record, write_page
from mmkd_plugin.support.columns import COLUMNS
from mmkd_plugin.support.page import tables
from tools.support_matrix import PAGE, RESULTS

ABOUT = {'with': 'mmdet 3', 'date': '2026-01-31'}


def record(tmp_path):
    found = Record(tmp_path / 'found.json')
    verdicts = [
        ['works', ''],
        ['absent', 'none'],
        ['refused', "losses['loss_dense'] (XLoss) reads [a|b]"],
        ['fails', 'boom'],
    ]
    columns = dict(zip(COLUMNS, [*verdicts, ['refused', "losses['loss_crosskd'] (XLoss) reads [a|b]"]], strict=True))
    found.add('f/f_r50.py', {'columns': columns, **ABOUT})
    found.add('g/g_r50.py', {'not_run': 'needs a<b>', **ABOUT})
    return found


def test_the_page_is_up_to_date():
    assert not write_page(PAGE, Record(RESULTS), write=False), 'run python tools/support_matrix.py --write'


def test_what_it_says(tmp_path):
    text = tables(record(tmp_path))
    assert '| f | `f_r50` | yes | – | no (1) | fails (2) | no (1) |' in text
    assert '1. … (XLoss) reads \\[a\\|b\\]\n2. boom' in text
    assert '| g | `g_r50` | needs a\\<b> |' in text
    assert 'Tried on 2026-01-31 with mmdet 3: 1 configs of 1 families.' in text
    assert 'logits of RoIs 1 of 1, features 0 of 0' in text


def test_it_goes_between_the_marks(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('before\n<!-- support_matrix -->\nold\n<!-- end support_matrix -->\nafter\n')
    assert write_page(page, record(tmp_path), write=False)
    assert 'old' in page.read_text()
    assert write_page(page, record(tmp_path))
    text = page.read_text()
    assert 'old' not in text
    assert text.startswith('before\n')
    assert text.endswith('\nafter\n')
    assert not write_page(page, record(tmp_path))
    page.write_text('no marks')
    with pytest.raises(ValueError, match='where the table goes'):
        write_page(page, record(tmp_path))
