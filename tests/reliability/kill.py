"""SIGKILL at random moments: what is resumed equals what was never interrupted, bit for bit."""

import functools
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import torch

from mmkd_plugin.store import Header, Records
from tests.end_to_end.helpers import command, options, tiny_options
from tests.processes import Forked, forked
from tests.reliability.case import Case

EPOCHS = 8
_LONGER = {'train_dataloader.dataset.per_class': 8, 'train_dataloader.batch_size': 8}
_SCENES: dict[str, Any] = {
    'train_dataloader.dataset.images': 8, 'train_dataloader.batch_size': 2, 'train_cfg.max_epochs': EPOCHS,
    'param_scheduler.total_steps': EPOCHS, 'train_cfg.val_interval': EPOCHS, 'randomness.seed': 3,
}  # fmt: skip
_PHASES = {
    'model.losses.loss_hint.schedule.end': 2, 'model.losses.loss_kd.schedule.begin': 2,
    'model.task_loss.schedule.begin': 2,
}  # fmt: skip
#: By what it is called: config, more options.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    'KD': ('kd_resnet.py', {}),
    'KCD': ('kcd_resnet.py', {'custom_hooks.2.interval': 1}),
    'CRD': ('digits/crd_resnet.py', {'model.losses.loss_crd.num_negatives': 20}),
    'FitNets in stages': ('digits/fitnet_stages_resnet.py', _PHASES),
    'mutual learning': ('digits/mutual_resnet.py', {}),
    'a store': ('digits/kd_store_resnet.py', {'model.teacher.store.views': 2}),
    'a detector': ('dkd_faster_rcnn.py', _SCENES),
}


class Whole(NamedTuple):
    """The run that was never interrupted, in a python of its own.

    Attributes:
        checkpoint: Its last.
        store: Bytes of its store's files, by name.
        seconds: From the first line of its log to the end, of another one in a fork.
    """

    checkpoint: dict[str, Any]
    store: dict[str, bytes]
    seconds: float


def cases(moments: int) -> Iterator[Case]:
    """So many moments, each of all kinds of runs, so that a campaign that is stopped has seen all kinds."""
    for moment in range(1, moments + 1):
        for name in RUNS:
            yield Case(f'{name}, {moment}', functools.partial(run, name, moment))


def _arguments(name: str, folder: Path, *more: str) -> list[Any]:
    config, changed = RUNS[name]
    values = changed if 'dataset.images' in str(changed) else tiny_options(EPOCHS, **_LONGER, **changed)
    if name == 'a store':
        values = {**values, 'model.teacher.store.path': folder / 'store'}
    return ['tools/train.py', f'configs/{config}', '--work-dir', folder, '--no-validate', *more, *options(values)]


@functools.cache
def whole(name: str) -> Whole:
    """The uninterrupted run, once a process; and one in a fork for its time."""
    folders = [Path(mkdtemp(prefix='reliability-whole-')) for _ in range(2)]
    command(*_arguments(name, folders[0]), timeout=900)
    process = Forked(*_arguments(name, folders[1]))
    begun = _begun(process, folders[1])
    assert process.wait(900).returncode == 0, process.stdout[-2000:]
    seconds = time.monotonic() - begun
    first, second = (_found(folder) for folder in folders)
    different = [*differences(first[0], second[0]), *_other_bytes(first[1], second[1])]
    assert not different, f'two uninterrupted runs differ: {different[:3]}'
    return Whole(*first, seconds)


def _begun(process: Forked, folder: Path) -> float:
    """When a run has its log, which is before its model is built."""
    while process.returncode is None and not any(folder.glob('*/*.log')):
        time.sleep(0.002)
    return time.monotonic()


def _found(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    checkpoint = torch.load(folder / f'epoch_{EPOCHS}.pth', map_location='cpu', weights_only=False)
    return checkpoint, {path.name: path.read_bytes() for path in (folder / 'store').glob('view_*')}


def run(name: str, moment: int, folder: Path) -> dict[str, Any]:
    """Kill once, look at what is left, resume, compare."""
    reference = whole(name)
    fraction, ended = random.Random(f'{name} {moment}').random(), 0
    while ended == 0:  # else it was quicker this time
        shutil.rmtree(folder)
        process = Forked(*_arguments(name, folder))
        deadline = _begun(process, folder) + fraction * reference.seconds
        while process.returncode is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if process.returncode is None:
            process.kill()
        ended = process.wait().returncode or 0
        fraction *= 0.8 if ended == 0 else 1
    assert ended == -9, process.stdout[-2000:]
    epochs = sorted(int(path.stem.removeprefix('epoch_')) for path in folder.glob('epoch_*.pth'))
    broken = [*broken_files(folder), *_torn(folder)]
    left = [path.name for path in folder.rglob('.*') if path.is_file() and path.name != '.running']
    done = forked(*_arguments(name, folder, '--resume'), check=False, timeout=900)
    if done.returncode:
        return {'verdict': f'could not be resumed: {done.stdout[-400:]}', 'fraction': round(fraction, 3)}
    checkpoint, store = _found(folder)
    different = [*differences(reference.checkpoint, checkpoint), *_other_bytes(reference.store, store)]
    broken += [*broken_files(folder), *_torn(folder)]
    verdict = 'fine'
    if different:
        verdict = f'differs in {different[:3]}'
    elif broken:
        verdict = f'broken files: {broken[:3]}'
    after = [path.name for path in folder.rglob('.*') if path.is_file() and path.name != '.running']
    return {
        'verdict': verdict, 'fraction': round(fraction, 3), 'epoch': max(epochs, default=0),
        'left': len(left), 'left_after': len(after),
    }  # fmt: skip


def broken_files(folder: Path) -> list[str]:
    """Checkpoints that cannot be read, and JSON that is none."""
    found = []
    for path in folder.rglob('*'):
        try:
            if path.suffix == '.pth':
                torch.load(path, map_location='cpu', weights_only=False)
            elif path.suffix == '.json' and path.name == 'header.json':
                json.loads(path.read_text())
        except Exception as error:
            found.append(f'{path.name} ({error!r:.80})')
    return found


def _torn(folder: Path) -> list[str]:
    """Records of a store that are there, and are not what their checksum says."""
    header = Header.of(folder / 'store')
    if header is None:
        return []
    records = Records(folder / 'store', header)
    return [f'{len(torn)} records of view {view}' for view in records.views() if len(torn := records.torn(view))]


def differences(a: Any, b: Any, where: str = '') -> Iterator[str]:
    """Where two checkpoints differ in what is trained: weights, optimizer, schedules, and how far they are."""
    if not where:
        for key in ('state_dict', 'optimizer', 'param_schedulers'):
            yield from differences(a.get(key), b.get(key), key)
        for key in ('epoch', 'iter'):
            yield from differences(a['meta'].get(key), b['meta'].get(key), key)
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or not torch.equal(a, b):
            yield where
    elif isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            yield f'{where}: keys'
        for key in a.keys() & b.keys():
            yield from differences(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            yield f'{where}: length'
        for number, pair in enumerate(zip(a, b, strict=False)):
            yield from differences(*pair, f'{where}[{number}]')
    elif not callable(a) and a != b:
        yield where


def _other_bytes(a: dict[str, bytes], b: dict[str, bytes]) -> list[str]:
    return [f'store: {name}' for name in a.keys() | b.keys() if a.get(name) != b.get(name)]
