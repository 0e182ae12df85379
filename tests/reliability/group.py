"""Several processes against one, uneven last batches, one that dies; and disks that fill."""

import contextlib
import functools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.end_to_end.helpers import tiny_options
from tests.end_to_end.test_distributed import GRADIENTS
from tests.processes import ROOT, Forked, free_port, together
from tests.reliability.case import Case
from tests.reliability.kill import broken_files, differences

EPOCHS = 8
_WORKER = ROOT / 'tests/reliability/worker.py'
_CHECKPOINT = f'epoch_{EPOCHS}.pth'
_KEEP: dict[str, Any] = {'default_hooks.checkpoint.max_keep_ckpts': -1}


def cases() -> Iterator[Case]:
    """All of them."""
    for processes in (2, 4):
        yield Case(f'{processes} processes against one: gradients', functools.partial(_gradients, processes))
        yield Case(f'{processes} processes, last batches of other sizes', functools.partial(_uneven, processes))
    yield Case('one of 2 processes dies', _dies)
    yield Case('a disk that fills with checkpoints', _full)
    yield Case('a disk without room for a store', _no_room)
    yield Case('a store that cannot grow any more', _store)


def _given(folder: Path, config: str = 'kd_resnet.py', launcher: str = 'none', limit: int = 0, resume: bool = False,
           **changed: Any) -> str:  # fmt: skip
    more = ['--resume'] * resume
    arguments = [str(ROOT / 'configs' / config), '--work-dir', str(folder), '--launcher', launcher, *more]
    options = tiny_options(EPOCHS, **changed)
    return json.dumps({'arguments': arguments, 'options': options, 'limit': limit})


def _gradients(processes: int, folder: Path) -> dict[str, Any]:
    script = folder / 'gradients.py'
    script.write_text(GRADIENTS)
    same = [('same gradients' in done.stdout) for done in together(script, ROOT, processes=processes)]
    return {'verdict': 'fine' if all(same) else 'other gradients', 'found': 'within 1e-9 of one process, float64'}


def _uneven(processes: int, folder: Path) -> dict[str, Any]:
    """41 images in batches of 7: the last batches have other sizes in some processes."""
    gathered = {'type': 'RKDLoss', 'on': 'neck', 'gather': True}
    changed: dict[str, Any] = {
        'train_dataloader.dataset.per_class': 5, 'train_dataloader.dataset.indices': list(range(41)),
        'train_dataloader.batch_size': 7, 'train_dataloader.sampler.round_up': False,
        'model.losses.loss_dkd': {'type': 'DKDLoss', 'on': 'head.fc'}, 'model.losses.loss_rkd': gathered,
    }  # fmt: skip
    group = together(_WORKER, _given(folder / 'run', launcher='pytorch', **changed), processes=processes)
    same = sum('SAME' in done.stdout for done in group)
    broken = broken_files(folder / 'run')
    fine = same == processes and not broken and (folder / 'run' / _CHECKPOINT).exists()
    return {'verdict': 'fine' if fine else f'{same} processes agree; {broken}', 'found': 'all have the same parameters'}


def _dies(folder: Path) -> dict[str, Any]:
    together(_WORKER, _given(folder / 'whole', launcher='pytorch', **_KEEP))
    port = str(free_port())
    group = [
        Forked(_WORKER, _given(folder / 'run', launcher='pytorch', **_KEEP), RANK=str(rank), LOCAL_RANK=str(rank),
               WORLD_SIZE='2', LOCAL_WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        for rank in range(2)
    ]  # fmt: skip
    group[1].kill_when(folder / 'run/epoch_2.pth')
    begun = time.monotonic()
    ended = group[0].wait(200).returncode
    seconds = round(time.monotonic() - begun, 1)
    broken = broken_files(folder / 'run')
    finished = (folder / 'run' / _CHECKPOINT).exists()
    together(_WORKER, _given(folder / 'run', launcher='pytorch', resume=True, **_KEEP))
    return _judged(
        folder, [(not ended, 'the other went on'), (finished, 'the run ended before'), (broken, f'broken: {broken}')],
        f'the other one ended with {ended} after {seconds} s; resumed: bit for bit',
    )  # fmt: skip


def _full(folder: Path) -> dict[str, Any]:
    _trained(folder / 'whole', **_KEEP)
    size = (folder / 'whole/epoch_1.pth').stat().st_size
    room = int(3.6 * size)
    with _small_disk(folder / 'run', room) as mounted:
        limit = 0 if mounted else size - 1000
        done = Forked(_WORKER, _given(folder / 'run', limit=limit, **_KEEP)).wait()
        there = sorted(path.name for path in (folder / 'run').glob('epoch_*'))
        broken = broken_files(folder / 'run')
        left = [path.name for path in (folder / 'run').glob('.epoch*')]
        told = next((text for text in ('No space left on device', 'File too large') if text in done.stdout), '')
        if mounted:
            subprocess.run(['mount', '-o', 'remount,size=256m', str(folder / 'run')], check=True)
        resumed = Forked(_WORKER, _given(folder / 'run', resume=True, **_KEEP)).wait()
        return _judged(folder, [
            (not done.returncode, 'no error'), (not told, f'not told: {done.stdout[-300:]}'),
            (broken, f'broken: {broken}'), (left, f'left: {left}'), (mounted and not there, 'no checkpoint'),
            (resumed.returncode, f'could not be resumed: {resumed.stdout[-300:]}'),
        ], f'{"tmpfs" if mounted else "RLIMIT_FSIZE"} of {room} bytes: "{told}", {len(there)} whole checkpoints stay, '
           'nothing else; resumed with room: bit for bit')  # fmt: skip


def _no_room(folder: Path) -> dict[str, Any]:
    with _small_disk(folder / 'store', 4096 * 3) as mounted:
        if not mounted:
            return {'verdict': 'not tried: no tmpfs can be mounted here'}
        store: dict[str, Any] = {'model.teacher.store': {'path': str(folder / 'store'), 'views': 300}}
        done = Forked(_WORKER, _given(folder / 'run', **store)).wait()
        told = 'and the disk has' in done.stdout
        trained = any((folder / 'run').glob('epoch_*'))
        fine = done.returncode and told and not trained
        return {'verdict': 'fine' if fine else done.stdout[-400:], 'found': 'told before the first step'}


def _store(folder: Path) -> dict[str, Any]:
    """No file may be longer than a bit more than a checkpoint: a view of the store is longer."""
    changed = {**_KEEP, 'model.losses.loss_at': {'type': 'ATLoss', 'on': 'backbone.layer2'}}

    def stored(name: str) -> dict[str, Any]:
        return {**changed, 'model.teacher.store': {'path': str(folder / name), 'views': 2}}

    _trained(folder / 'whole', **stored('store_whole'))
    size = (folder / 'whole/epoch_1.pth').stat().st_size
    view = (folder / 'store_whole/view_0001.bin').stat().st_size
    limit = (size + view) // 2
    assert size < limit < view, (size, view)
    done = Forked(_WORKER, _given(folder / 'run', limit=limit, **stored('store'))).wait()
    broken = broken_files(folder / 'run')
    resumed = Forked(_WORKER, _given(folder / 'run', resume=True, **stored('store'))).wait()
    other = [path.name for path in (folder / 'store_whole').glob('view_*')
             if path.read_bytes() != (folder / 'store' / path.name).read_bytes()]  # fmt: skip
    told = 'lacks records and cannot be written to' in done.stdout
    return _judged(
        folder, [(not done.returncode, 'no error'), (not told, f'not told: {done.stdout[-300:]}'), (broken, 'broken'),
                 (resumed.returncode, f'not resumed: {resumed.stdout[-300:]}'), (other, f'other records: {other}')],
        f'RLIMIT_FSIZE of {limit} bytes: told; resumed without it: the same weights and records',
    )  # fmt: skip


def _trained(folder: Path, **changed: Any) -> None:
    done = Forked(_WORKER, _given(folder, **changed)).wait()
    assert done.returncode == 0, done.stdout[-2000:]


def _judged(folder: Path, problems: list[tuple[Any, str]], found: str) -> dict[str, Any]:
    """The first problem; or whether the resumed run ended as the whole one did."""
    import torch

    told = [text for wrong, text in problems if wrong]
    if not told:
        a, b = (torch.load(folder / name / _CHECKPOINT, weights_only=False) for name in ('whole', 'run'))
        told = [f'differs in {where}' for where in differences(a, b)]
    return {'verdict': told[0] if told else 'fine', 'found': found}


@contextlib.contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A tmpfs, if one can be mounted here; whether it could."""
    folder.mkdir()
    options = f'size={-(-size // 4096) * 4096}'
    done = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)], capture_output=True, check=False
    )
    mounted = done.returncode == 0 and os.path.ismount(folder)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(['umount', str(folder)], check=True)
