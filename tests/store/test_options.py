"""What a config may say of a store."""

from pathlib import Path

import pytest

from mmkd_plugin.store import StoreOptions


def read(**more):
    return StoreOptions.read({'path': 'x', 'views': 2, **more}, 'teacher')


def test_what_it_says():
    assert read() == StoreOptions(Path('x'), 2, 'all', 'float16', 0, (), 2**18)
    assert read(keep=5, temperatures=[4, 1.0], dtype='float32').temperatures == (1.0, 4.0)


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ({'view': 3}, r"unknown keys \['view'\] \(did you mean views\?\)"),
        ({'views': 0}, 'views=0 given'),
        ({'views': True}, 'views=True given'),
        ({'path': ''}, "path='' given"),
        ({'keep': 0}, "keep=0 given, expected 'all' or"),
        ({'keep': 'some'}, "keep='some' given"),
        ({'keep': True}, 'keep=True given'),
        ({'dtype': 'bfloat16'}, "dtype='bfloat16' given"),
        ({'seed': -1}, 'seed=-1 given'),
        ({'keep': 3, 'temperatures': 4.0}, r'temperatures=4.0 given, expected a list'),
        ({'keep': 3, 'temperatures': [0]}, 'temperatures=0 given'),
        ({'temperatures': [1.0]}, "with keep='all'"),
        ({'record_limit': 0}, 'record_limit=0 given'),
    ],
)
def test_what_is_not_understood(more, message):
    with pytest.raises(ValueError, match=message):
        read(**more)


@pytest.mark.parametrize('given', [None, 'folder', {'path': 'x'}, {'views': 3}])
def test_path_and_views_are_needed(given):
    with pytest.raises(ValueError, match='teacher: store='):
        StoreOptions.read(given, 'teacher')
