import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmkd_plugin.files.file_kinds import is_safetensors, not_by_torch


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('protocol', [2, 4])
def test_files_of_torch_save(tmp_path, legacy, protocol):
    torch.save(
        {'a': torch.ones(2)}, tmp_path / 'a', pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy
    )
    assert not_by_torch(tmp_path / 'a') is None
    assert not is_safetensors(tmp_path / 'a')


def test_safetensors(tmp_path):
    save_file({'a': torch.ones(2)}, tmp_path / 'a')
    assert is_safetensors(tmp_path / 'a')


PAGE = b'\xef\xbb\xbf\n<!doctype html>\n<html lang="en"><title>\n Sign in &middot; GitHub</title>caf\xe9'
POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132\n'


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (PAGE, "is a web page (HTML) with the title 'Sign in · GitHub'"),
        (PAGE, '/raw/'),
        (POINTER, '`git lfs pull`'),
        (b'', 'is empty'),
        (b'PK\x03\x04 truncated', 'is incomplete'),
        (b'{"message": "Not Found"}', """is text that begins with '{"message": "Not Found"}'"""),
        (b'model = dict(\n', "is text that begins with 'model = dict('"),
        (b'\x08\x07\x12\x07pytorch\x1a\x052.1.0:', 'is an ONNX file'),
        (pickle.dumps({'a': 1}), 'is a plain Python pickle'),
        (pickle.dumps({'a': np.ones(2)}, protocol=2), 'is a plain Python pickle'),
        (gzip.compress(b'x', mtime=0), 'is packed with gzip. Unpack it'),
        (b'\x89HDF\r\n\x1a\n', 'is an HDF5 file'),
        (b'\x00\x01\x02\x03\xff', r"begins with b'\x00\x01"),
    ],
)  # fmt: skip
def test_other_files_are_named(tmp_path, content, said):
    (tmp_path / 'a').write_bytes(content)
    text = not_by_torch(tmp_path / 'a')
    assert text is not None
    assert said in text
    assert 'trust_pickle' not in text


def test_torchscript(tmp_path):
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / 'a.pt')
    assert 'is a TorchScript file' in str(not_by_torch(tmp_path / 'a.pt'))


def test_archives(tmp_path):
    np.savez(tmp_path / 'a.npz', a=np.ones(2))
    assert 'is an archive of numpy arrays' in str(not_by_torch(tmp_path / 'a.npz'))
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('run/epoch_1.pth', 'x')
    assert 'it holds run/epoch_1.pth. Unpack it' in str(not_by_torch(tmp_path / 'a.zip'))
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        tar.addfile(tarfile.TarInfo('epoch_1.pth'), io.BytesIO())
    assert 'is a tar archive' in str(not_by_torch(tmp_path / 'a.tar'))
