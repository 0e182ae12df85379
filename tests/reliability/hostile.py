"""Hostile checkpoints, stores and what they say: nothing is executed, nothing outside the work folder is written."""

import contextlib
import functools
import hashlib
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from tests.reliability.attempt import attempt
from tests.reliability.case import Case
from tests.reliability.mistakes import shortened
from tests.reliability.watched import watched
from tests.reliability.wrong_files import saved, weights, written

#: Options of the config and more of the command line.
Given = tuple[dict[str, Any], tuple[Any, ...]]
KEY = 'model.teacher.checkpoint'


class Code:
    """Pickled as a call that makes a file."""

    def __init__(self, path: Path, call: Callable[..., Any] = os.system) -> None:
        self.path, self.call = path, call

    def __reduce__(self) -> Any:
        if self.call is os.system:
            return os.system, (f'touch {self.path}',)
        return self.call, (f'open({str(self.path)!r}, "w").close()',)


class Reach:
    """Pickled as python's own look-up, which mmengine's files name, too, of something else."""

    def __reduce__(self) -> Any:
        return getattr, (torch.Tensor, '__init_subclass__')


def _teacher(make: Callable[[Path, Path], Any]) -> Callable[[Path, Path], Given]:
    """A teacher's checkpoint, made as (path, what it would create)."""

    def given(folder: Path, ran: Path) -> Given:
        make(folder / 'teacher.pth', ran)
        return {KEY: str(folder / 'teacher.pth')}, ()

    return given


def _slip(path: Path, ran: Path) -> None:
    """An archive with names that lead out of it."""
    saved(path, {'state_dict': weights()})
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('../' * 8 + str(ran).lstrip('/'), 'x')
        archive.writestr(str(ran), 'x')


def _script(path: Path, ran: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(path)


def _terabyte(path: Path, ran: Path) -> None:
    state = weights()
    name = 'backbone.layer1.0.conv1.weight'
    state[name] = torch.zeros(1).as_strided((2**20, 2**20), (0, 0))
    saved(path, {'state_dict': state})


def _config_inside(path: Path, ran: Path) -> None:
    """A good checkpoint that brings the text of a config, and names as code would have them."""
    meta = {
        'cfg': f'open({str(ran)!r}, "w").close()\ncustom_imports = dict(imports=["evil"])',
        'classes': [f"{{__import__('os').system('touch {ran}')}}"] * 10,
        'experiment_name': f'../../{ran.name}',
    }
    saved(path, {'state_dict': weights(), 'meta': meta})


def _resumed(folder: Path, ran: Path) -> Given:
    """A run's own checkpoint, whose state of the message hub was exchanged."""
    done = attempt('kd_resnet.py', folder / 'before', changed={'train_cfg.max_epochs': 1})
    assert done.error is None, done.said
    path = folder / 'before/epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    saved(path, {**checkpoint, 'message_hub': Code(ran)})
    return {}, ('--resume', path)


def _store(change: Callable[[Path, Path], Any]) -> Callable[[Path, Path], Given]:
    """A store of this very run, changed."""

    def given(folder: Path, ran: Path) -> Given:
        store = {'model.teacher.store': {'path': str(folder / 'store'), 'views': 2}}
        done = attempt('kd_resnet.py', folder / 'before', changed={'train_cfg.max_epochs': 1, **store})
        assert done.error is None, done.said
        change(folder / 'store', ran)
        return store, ()

    return given


def _signed(path: Path, **changed: Any) -> None:
    """Another header, with a right digest."""
    header = json.loads((path / 'header.json').read_text())
    content = {**{key: value for key, value in header.items() if key != 'sha256'}, **changed}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (path / 'header.json').write_text(json.dumps({**content, 'sha256': digest}))


def _linked(path: Path, ran: Path) -> None:
    """Files of values that are links to somebody's file."""
    precious = written(ran.parent / 'precious', b'precious')
    for file in path.glob('view_0001.*'):
        file.unlink()
    (path / 'view_0001.bin').symlink_to(precious)


def _forms(path: Path, ran: Path) -> None:
    header = json.loads((path / 'header.json').read_text())
    _signed(path, taps={str(ran): next(iter(header['taps'].values()))})


FILES: dict[str, Callable[[Path, Path], Given]] = {
    'checkpoint: a call of os.system in the weights': _teacher(
        lambda path, ran: saved(path, {'state_dict': Code(ran)})),
    'checkpoint: exec beside whole weights': _teacher(
        lambda path, ran: saved(path, {'state_dict': weights(), 'meta': Code(ran, exec)})),
    'checkpoint: getattr, which mmengine asks for, of something else': _teacher(
        lambda path, ran: saved(path, {'state_dict': weights(), 'meta': Reach()})),
    'checkpoint: in the format of old': _teacher(lambda path, ran: torch.save(
        {'state_dict': weights(), 'meta': Code(ran)}, path, _use_new_zipfile_serialization=False)),
    'checkpoint: a plain pickle': _teacher(lambda path, ran: written(path, pickle.dumps(Code(ran)))),
    'checkpoint: TorchScript, a program': _teacher(_script),
    'checkpoint: an archive whose names lead out of it': _teacher(_slip),
    'checkpoint: a tensor that says it has a terabyte': _teacher(_terabyte),
    'checkpoint: safetensors whose header says it has an exabyte': _teacher(
        lambda path, ran: written(path, (2**60).to_bytes(8, 'little') + b'{' + b' ' * 64)),
    'checkpoint: a config and code as text': _teacher(_config_inside),
    'checkpoint: to resume from, with code in its state': _resumed,
    'store: a header nested a hundred thousand deep': _store(
        lambda path, ran: (path / 'header.json').write_text('[' * 100_000)),
    'store: a header that says it has 2^50 samples': _store(lambda path, ran: _signed(path, entries=2**50)),
    'store: a tap that is a path': _store(_forms),
    'store: values that are a link to another file': _store(_linked),
}  # fmt: skip
#: What may be used: it does no harm, since what is not asked for is not read.
USED = ('checkpoint: a config and code as text',)


def cases() -> Iterator[Case]:
    """One for each file."""
    for name, make in FILES.items():
        yield Case(name, functools.partial(run, name, make))


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    """Temporary files go below a folder."""
    with mock.patch.object(tempfile, 'tempdir', str(folder)):
        yield


_USUAL: list[set[str]] = []


def _usual(folder: Path) -> set[str]:
    """What a run with the right teacher does outside of its folder: caches, and questions to git of the version."""
    if not _USUAL:
        (folder / 'usual').mkdir()
        with watched(folder / 'usual') as happened, _temporary(folder / 'usual'):
            done = attempt('kd_resnet.py', folder / 'usual/run')
        assert done.error is None, done.said
        _USUAL.append(set(happened))
    return _USUAL[0]


def run(name: str, make: Callable[[Path, Path], Given], folder: Path) -> dict[str, Any]:
    """Train with it, and look at what happened besides."""
    inside, outside = folder / 'inside', folder / 'outside'
    for path in (inside, outside):
        path.mkdir()
    changed, argv = make(inside, outside / 'ran')
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    usual = _usual(folder)
    with watched(inside) as happened, _temporary(inside):
        done = attempt('kd_resnet.py', inside / 'run', *argv, changed=changed)
    happened = [event for event in happened if event not in usual]
    after = {path.name: path.read_bytes() for path in outside.iterdir()}
    said = shortened(done.said.replace(str(folder), '…'))
    if done.updates and name not in USED:
        verdict = f'late: after {done.updates} updates'
    elif happened or after != before:
        verdict = f'harm: {happened or sorted(after)}'
    elif (done.error is None) != (name in USED):
        verdict = 'used' if done.error is None else f'refused: {said}'
    else:
        verdict = 'fine'
    return {'verdict': verdict, 'error': done.kind or 'used, without harm', 'stage': done.stage, 'said': said}
