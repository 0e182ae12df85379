"""Files that are not what a run needs, made in a folder. Each returns the path."""

import contextlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.processes import ROOT

TEACHER = ROOT / 'mmkd_plugin/checkpoints/digits/resnet_teacher.pth'
#: Processes that hold a lock until the test ends.
_HELD: list[Any] = []


def weights() -> dict[str, torch.Tensor]:
    """Those of the shipped teacher."""
    return dict(torch.load(TEACHER, weights_only=True)['state_dict'])


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _nan(path: Path) -> Path:
    state = weights()
    state['backbone.layer2.0.conv1.weight'][0] = torch.nan
    return saved(path, {'state_dict': state})


def _half(path: Path) -> Path:
    state = {key: value for key, value in weights().items() if not key.startswith('backbone.layer4')}
    return saved(path, {'state_dict': state})


def _torchscript(path: Path) -> Path:
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(path)
    return path


def _arrays(path: Path) -> Path:
    with path.open('wb') as file:
        np.savez(file, a=np.ones(3))
    return path


def _locked(path: Path) -> Path:
    """A work folder that another process is using."""
    path.mkdir()
    script = (
        'import fcntl, sys, time; file = open(sys.argv[1], "w"); fcntl.lockf(file, fcntl.LOCK_EX); '
        'file.write("process 1"); file.flush(); print(1, flush=True); time.sleep(600)'
    )
    other = subprocess.Popen([sys.executable, '-S', '-c', script, str(path / '.running')], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    _HELD.append(other)
    return path


def release() -> None:
    """End the processes that hold locks."""
    while _HELD:
        with _HELD.pop() as other:
            other.kill()


def _checkpoint_of(path: Path, config: str, **changed: Any) -> Path:
    """The first epoch of a run."""
    from tests.reliability.attempt import attempt

    done = attempt(config, path.parent / 'before', changed={'train_cfg.max_epochs': 1, **changed})
    assert done.error is None, done.said
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return path.parent / 'before/epoch_1.pth'


_FEW_NEGATIVES: dict[str, Any] = {'model.losses.loss_crd.num_negatives': 20}


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _store(path: Path) -> Path:
    """Filled by a run of another pipeline."""
    store = {'model.teacher.store': {'path': str(path), 'views': 2}}
    other = {'train_dataloader.dataset.pipeline.0.padding': 3}
    _checkpoint_of(path.parent / 'unused.pth', 'kd_resnet.py', **store, **other)
    return path


def _header(path: Path) -> Path:
    """A store whose header was cut."""
    written(path / 'header.json', json.dumps({'format': 1, 'entries': 40}).encode())
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    'nothing': lambda path: path,
    'folder': _folder,
    'empty': lambda path: written(path, b''),
    'page': lambda path: written(path, b'<!doctype html><html><title>Sign in</title></html>'),
    'pointer': lambda path: written(path, b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132\n'),
    'cut': lambda path: written(path, TEACHER.read_bytes()[:100_000]),
    'pickle': lambda path: written(path, pickle.dumps({'a': 1})),
    'model': lambda path: saved(path, nn.Linear(2, 2)),
    'torchscript': _torchscript,
    'arrays': _arrays,
    'safetensors': lambda path: written(path, (50).to_bytes(8, 'little') + b'{"a": {"dtype": "F32", "shape": [3], '),
    'nan': _nan,
    'half': _half,
    'renamed': lambda path: saved(path, {'state_dict': {f'net.{key}': value for key, value in weights().items()}}),
    'elsewhere': lambda path: saved(path, {'model': weights(), 'epoch': 3}),
    'another': lambda path: saved(path, {'state_dict': nn.Linear(3, 3).state_dict()}),
    'config': lambda path: written(path, b'model = dict(type=\n'),
    'of_fitnet': lambda path: _checkpoint_of(path, 'digits/fitnet_resnet.py'),
    'of_crd': lambda path: _checkpoint_of(path, 'digits/crd_resnet.py', **_FEW_NEGATIVES),
    'store': _store,
    'header': _header,
    'locked': _locked,
}
