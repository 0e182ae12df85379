import os

import pytest
import torch

from mmkd_plugin.files.addresses import local_path
from mmkd_plugin.files.checkpoint import read_checkpoint


def test_missing_file_names_the_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none.pth.*looked at.*Train the teacher first'):
        read_checkpoint(str(tmp_path / 'none.pth'))


def test_file_addresses_are_local_paths(tmp_path):
    path = tmp_path / 'my teacher.pth'
    torch.save({'a': torch.ones(1)}, path)
    assert '%20' in path.as_uri()
    assert local_path(path.as_uri()) == path
    assert local_path(f'file://localhost{path}') == path
    assert read_checkpoint(path.as_uri())['a'] == 1
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        local_path((tmp_path / 'none.pth').as_uri())
    with pytest.raises(ValueError, match='three slashes'):
        local_path('file://work_dirs/teacher.pth')


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save({'a': torch.ones(1)}, tmp_path / 't.pth')
    assert read_checkpoint('~/t.pth')['a'] == 1


def test_folder_names_what_is_in_it(tmp_path):
    for age, name in enumerate(['epoch_9.pth', 'epoch_10.pth', 'log.txt']):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    with pytest.raises(ValueError, match=r'is a folder, expected a file. In it: epoch_10.pth, epoch_9.pth$'):
        local_path(str(tmp_path))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='In it: no checkpoints'):
        local_path(str(tmp_path / 'empty'))


def test_what_has_to_be_fetched():
    assert local_path('https://host/x.pth') is None
    assert local_path('torchvision://resnet18') is None
