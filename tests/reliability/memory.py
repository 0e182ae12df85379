"""Many steps: what a process holds does not grow."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.processes import ROOT, forked
from tests.reliability.case import Case

#: Steps at which is looked; the last is the length of the run.
STEPS = [500, 1000, 1500, 2000]
#: Bytes of resident memory from the first look to the last that are no growth: allocators, and mmengine's own history
#: of each logged value, 16 bytes a step.
SLACK = 6 * 2**20

_EPOCHS = 200  # of 10 steps
_TINY: dict[str, Any] = {
    'train_cfg.max_epochs': _EPOCHS, 'train_cfg.val_interval': _EPOCHS, 'log_level': 'WARNING', 'randomness.seed': 3,
    'default_hooks.checkpoint.interval': 50,
}  # fmt: skip
_DIGITS = {**_TINY, 'train_dataloader.dataset.per_class': 4, 'train_dataloader.batch_size': 4}
_SCENES = {**_TINY, 'train_dataloader.dataset.images': 20, 'train_dataloader.batch_size': 2}
#: By config, more options; those whose teachers come from a chain of runs are not here.
CONFIGS: dict[str, dict[str, Any]] = {
    'kd_resnet.py': {},
    'digits/crd_resnet.py': {'model.losses.loss_crd.num_negatives': 20},
    'kcd_resnet.py': {'custom_hooks.2.interval': 20, 'train_cfg.max_epochs': 300},  # of which most are shorter
    'digits/mutual_resnet.py': {},
    'digits/kd_store_resnet.py': {'model.teacher.store.path': '{folder}/store', 'model.teacher.store.views': 2},
    'dkd_faster_rcnn.py': _SCENES,
    'dkd_resnet.py': {},
    'nst_resnet.py': {},
    **{f'digits/{name}_resnet.py': {} for name in (
        'ab', 'at', 'byot', 'cc', 'dist', 'fitnet', 'ft', 'irg', 'kdsvd', 'lp', 'mhgd', 'mean_teacher',
        'ofd', 'pkt', 'reviewkd', 'rkd', 'semckd', 'sp', 'tfkd', 'vid', 'fsp_stages', 'fitnet_stages')},
    'digit_scenes/crosskd_gfl.py': _SCENES,
}  # fmt: skip


def cases() -> Iterator[Case]:
    """One for each method."""
    for config in CONFIGS:
        yield Case(config, functools.partial(run, config))


def run(config: str, folder: Path, steps: tuple[int, ...] = tuple(STEPS)) -> dict[str, Any]:
    """Train, and compare what was held."""
    more = {key: str(value).replace('{folder}', str(folder)) if key.endswith('path') else value
            for key, value in CONFIGS[config].items()}  # fmt: skip
    options = {**_DIGITS, **more} if 'images' not in str(more) else more
    options['train_cfg.max_epochs'] = max(steps[-1] // 10, more.get('train_cfg.max_epochs', 0))
    given = {'config': str(ROOT / 'configs' / config), 'options': options, 'work_dir': str(folder), 'steps': steps}
    done = forked(ROOT / 'tests/reliability/steps.py', json.dumps(given), check=False, timeout=3000)
    looks = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith('HELD ')]
    if done.returncode or len(looks) < len(steps):
        return {'verdict': f'ended with {done.returncode}: {done.stdout[-600:]}'}
    first, last = looks[0], looks[-1]
    grown = {key: last[key] - first[key] for key in first if key != 'step'}
    return {
        'verdict': _judge(grown, looks), 'steps': last['step'], 'memory': round(last['memory'] / 2**20, 1),
        'memory_grown': round(grown['memory'] / 2**20, 2), 'tensors': last['tensors'],
        **{f'{key}_grown': grown[key] for key in ('files', 'threads', 'tensors')},
    }  # fmt: skip


def _judge(grown: dict[str, int], looks: list[dict[str, int]]) -> str:
    found = [f'{grown[key]} more {key}' for key in ('files', 'threads', 'tensors') if grown[key] > 0]
    if grown['memory'] > SLACK:
        found.append('memory of ' + ', '.join(f'{look["memory"] / 2**20:.1f}' for look in looks) + ' MiB')
    return '; '.join(found) or 'fine'
