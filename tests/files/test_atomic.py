import os

import pytest
import torch
from mmengine.fileio import get_file_backend

from mmkd_plugin.files import atomic


def test_write_replaces_whole_files_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / 'sub' / 'a.txt'
    atomic.write_text(path, 'one')
    atomic.write_text(path, 'zwei')
    assert path.read_text() == 'zwei'
    assert os.listdir(path.parent) == ['a.txt']


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    atomic.write_text(path, 'old')

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', killed)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_text(path, 'new')
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a.txt']


def test_permissions_follow_the_umask(tmp_path):
    atomic.write_text(tmp_path / 'a', '')
    (tmp_path / 'b').write_text('')
    assert (tmp_path / 'a').stat().st_mode == (tmp_path / 'b').stat().st_mode


def test_save_checkpoint(tmp_path, monkeypatch):
    atomic.save_checkpoint({'a': torch.ones(2)}, tmp_path / 'x.pth')
    monkeypatch.setattr(torch, 'save', lambda *_: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        atomic.save_checkpoint({}, tmp_path / 'x.pth')
    monkeypatch.undo()
    assert torch.equal(torch.load(tmp_path / 'x.pth')['a'], torch.ones(2))
    assert os.listdir(tmp_path) == ['x.pth']


def test_the_same_content_is_the_same_bytes_under_any_name(tmp_path):
    for name in ('x.pth', 'yy.pth'):
        atomic.save_checkpoint({'a': torch.ones(2)}, tmp_path / name)
    assert (tmp_path / 'x.pth').read_bytes() == (tmp_path / 'yy.pth').read_bytes()


def test_mmengine_finds_the_backend(tmp_path):
    backend = get_file_backend(str(tmp_path), backend_args={'backend': 'atomic'})
    backend.put(b'x', tmp_path / 'f')
    backend.put_text('y', tmp_path / 'g')
    assert (tmp_path / 'f').read_bytes() + (tmp_path / 'g').read_bytes() == b'xy'
