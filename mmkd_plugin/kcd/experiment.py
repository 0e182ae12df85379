"""An experiment that can tell whether condensing by a value pays: its settings, its configs, and what each costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..files.atomic import write_text
from .valuation import keep_counts

EPOCHS = 20
INTERVAL = 4
#: By name, options of the training data: 1,000 digits.
DATA: dict[str, dict[str, Any]] = {
    'clean': dict(per_class=100),
    'noise': dict(per_class=100, label_noise=0.1),
    'duplicates': dict(per_class=40, copied=10, copies=6),
}
SIZE = 1000
#: Data, and the part of them that the last rounds keep.
SETTINGS = [('clean', 0.7), ('noise', 0.7), ('duplicates', 0.7), ('duplicates', 0.5)]
VALUES = ('entropy', 'margin', 'loss', 'kl', 'forgetting')
FRESH, FIXED, PLAIN = 'random, fresh', 'random, fixed', 'all data'

_TEACHER = """_base_ = __import__('mmkd_plugin').config_path('digits/resnet_student.py')
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, in_channels=1, stem_channels=16, base_channels=16),
    head=dict(in_channels=128))
pipeline = [dict(type='RandomCrop', crop_size=32, padding=4), dict(type='PackInputs')]
train_dataloader = dict(batch_size=50, dataset=dict(per_class=400, pipeline=pipeline))
val_dataloader = dict(
    dataset=dict(pipeline=[dict(type='CenterCrop', crop_size=32, auto_pad=True), dict(type='PackInputs')]))
test_dataloader = val_dataloader
param_scheduler = dict(eta_max=0.1, total_steps={epochs})
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
default_hooks = dict(checkpoint=dict(interval={epochs}))
"""
_STUDENT = """_base_ = __import__('mmkd_plugin').config_path('kd_resnet.py')
model = dict(
    backbone=dict(_delete_=True, type='LeNet5'),
    head=dict(in_channels=120),
    teacher=dict(_delete_=True, config='{teacher}', checkpoint='{checkpoint}'))
pipeline = [dict(type='RandomCrop', crop_size=32, padding=4), dict(type='PackInputs')]
train_dataloader = dict(batch_size=50, dataset=dict(pipeline=pipeline, {data}))
val_dataloader = dict(
    dataset=dict(pipeline=[dict(type='CenterCrop', crop_size=32, auto_pad=True), dict(type='PackInputs')]))
test_dataloader = val_dataloader
param_scheduler = dict(total_steps={epochs})
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
custom_hooks = [dict(type='EpochSeedHook'), dict(type='DistillHook'){hook}]
default_hooks = dict(checkpoint=dict(interval=1000, save_last=False), logger=dict(interval=20))
"""


class Case(NamedTuple):
    """One way to train on one kind of data.

    Attributes:
        data: A key of :data:`DATA`.
        ratio: The part of them that is kept in the end; of plain distillation, 1.
        method: What the table calls it.
        hook: Arguments of ``KCDHook``; None for plain distillation.
        epochs: How many.
    """

    data: str
    ratio: float
    method: str
    hook: dict[str, Any] | None
    epochs: int

    @property
    def name(self) -> str:
        """Of its config."""
        words = ''.join(letter if letter.isalnum() else '_' for letter in self.method)
        return f'{self.data}_{self.ratio:g}_{words}_{self.epochs}'

    @property
    def passes(self) -> int:
        """Images that the student is run on: for training, or (``dropped_value='pass'``) to see what they are worth."""
        if self.hook is None:
            return self.epochs * SIZE
        rounds = range(INTERVAL, self.epochs, INTERVAL)
        kept = [SIZE, *keep_counts(SIZE, len(rounds), self.ratio)]
        trained = sum(kept[min(epoch // INTERVAL, len(rounds))] for epoch in range(self.epochs))
        looked = sum(SIZE - count for count in kept[:-1])
        return trained + (looked if self.hook.get('dropped_value') == 'pass' else 0)


def cases(data: str, ratio: float, epochs: int = EPOCHS) -> list[Case]:
    """All that is compared in one setting: plain distillation, chance, and each value in each way to treat the dropped.

    Args:
        data: A key of :data:`DATA`.
        ratio: The part that is kept in the end.
        epochs: Of all but the plain distillation for as many passes.
    """
    hooks: dict[str, dict[str, Any]] = {
        FRESH: dict(value='random'),
        FIXED: dict(value='random', rank_over='kept'),
    }
    for value in VALUES:
        hooks[value] = dict(value=value)
        if value != 'forgetting':  # counts do not fall
            hooks[f'{value}, aged'] = dict(value=value, dropped_value='aged')
        hooks[f'{value}, pass'] = dict(value=value, dropped_value='pass')
    hooks = {name: dict(mixing=None, **hook) for name, hook in hooks.items()}
    hooks['entropy, mixed'] = dict(value='entropy', mixing='convex')
    condensed = [Case(data, ratio, name, hook, epochs) for name, hook in hooks.items()]
    as_long = round(condensed[0].passes / SIZE)
    plain = [Case(data, 1.0, PLAIN, None, length) for length in (epochs, as_long)]
    return [*plain, *condensed]


def write_configs(folder: Path, epochs: int = EPOCHS) -> tuple[Path, dict[Path, Case]]:
    """A config for each case, and the teacher's; each is trained by `tools/train.py` like any other.

    Args:
        folder: Where they go, in ``configs``; the teacher's checkpoint is looked for in ``teacher``.
        epochs: Of all of them.

    Returns:
        The teacher's config, and the cases by their configs; those of several settings are there once.
    """
    teacher = folder / 'configs' / 'teacher.py'
    _write(teacher, _TEACHER.format(epochs=epochs))
    found: dict[Path, Case] = {}
    for setting in SETTINGS:
        for case in cases(*setting, epochs):
            path = folder / 'configs' / f'{case.name}.py'
            text = _STUDENT.format(
                teacher=teacher,
                checkpoint=folder / 'teacher' / f'epoch_{epochs}.pth',
                data=_arguments(DATA[case.data]),
                epochs=case.epochs,
                hook='' if case.hook is None else ', dict(' + _arguments(_hook(case)) + ')',
            )
            _write(path, text)
            found[path] = case
    return teacher, found


def _hook(case: Case) -> dict[str, Any]:
    return dict(type='KCDHook', interval=INTERVAL, final_ratio=case.ratio, table=False, **(case.hook or {}))


def _arguments(values: Mapping[str, Any]) -> str:
    return ', '.join(f'{key}={value!r}' for key, value in values.items())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)
