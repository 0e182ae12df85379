"""What `tools/precompute.py` and `tools/store.py check` do: the images of a run, its stored teachers, no training."""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from .facts import Batch
from .hooks.stores import stored_teachers
from .launch import import_models
from .store import StoreOptions
from .teachers import Stored

Array = np.ndarray[Any, Any]
_SETTINGS = ('num_workers', 'collate_fn', 'pin_memory', 'worker_init_fn', 'multiprocessing_context')


class Recheck(NamedTuple):
    """What came of comparing records with the teacher.

    Attributes:
        tap: Which.
        compared: Records.
        difference: The largest one, relative to the spread of the values.
    """

    tap: str
    compared: int
    difference: float


class StoreLoop(EpochBasedTrainLoop):
    """A training loop that trains nothing: epoch e draws some samples of view e, and hands them to a visitor.

    Args:
        runner: mmengine's.
        dataloader: The training data.
        max_epochs: Views.
        choose: From a stored teacher and a view to indices (n,) of samples.
        visit: Gets each teacher, view, batch and its indices.
        awake: Whether teachers need their weights in any case.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int,
        choose: Callable[[Stored, int], Array],
        visit: Callable[[Stored, int, Batch, Array], None],
        awake: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, max_epochs)
        self._choose, self._visit = choose, visit
        for source in stored_teachers(runner.model.distill).values():
            source.weights_wanted |= awake

    @torch.no_grad()
    def run(self) -> Any:
        """All views."""
        model = self.runner.model
        self.runner.call_hook('before_train')
        for view in range(self._max_epochs):
            self._epoch = view
            self.runner.call_hook('before_train_epoch')
            for source in stored_teachers(model.distill).values():
                indices = self._choose(source, view)
                for numbers, batch in self._batches(indices):
                    source.get_ready(batch.images)
                    self._visit(source, view, batch, numbers)
        return model

    def _batches(self, indices: Array) -> Iterator[tuple[Array, Batch]]:
        loader, model = self.dataloader, self.runner.model
        size = loader.batch_size or loader.batch_sampler.batch_size
        parts = [indices[start : start + size] for start in range(0, len(indices), size)]
        settings = {name: getattr(loader, name) for name in _SETTINGS}
        drawn = DataLoader(loader.dataset, batch_sampler=[part.tolist() for part in parts], **settings)
        for numbers, data in zip(parts, drawn, strict=True):
            made = model.data_preprocessor(data, True)
            images, samples = made['inputs'], made['data_samples']
            yield numbers, Batch(images, samples, model.distill.sizes.of(images, samples))


def fill(args: argparse.Namespace) -> dict[str, tuple[int, float]]:
    """Write what is missing in the stores of a config.

    Args:
        args: ``config``, ``cfg_options``, and ``part``, a pair (k, n): every n-th sample, from number k on.

    Returns:
        By teacher, how many records were written, and in how many seconds.

    Raises:
        SystemExit: If no teacher of the config has a store.
    """
    part, parts = args.part
    written: dict[str, tuple[int, float]] = {}
    told = begun = time.monotonic()

    def missing(source: Stored, view: int) -> Array:
        assert source.records is not None
        lacking = np.flatnonzero(~source.records.written(view))
        return lacking[lacking % parts == part]  # by index, as others write meanwhile

    def visit(source: Stored, view: int, batch: Batch, indices: Array) -> None:
        nonlocal told
        source.read(batch, source.wanted)
        now = time.monotonic()
        written[source.name] = written.get(source.name, (0, 0.0))[0] + len(indices), now - begun
        if now - told > 10:
            told = now
            print(f'{source.name}: view {view}, {written[source.name][0]} records in {now - begun:.0f} s', flush=True)

    def choose(source: Stored, view: int) -> Array:
        nonlocal begun
        begun = begun if written else time.monotonic()  # what was loaded before does not count
        return missing(source, view)

    _run(args, dict(choose=choose, visit=visit))
    return written


def recheck(args: argparse.Namespace) -> list[Recheck]:
    """Compare some records of each view with what the teacher computes now.

    Args:
        args: ``config``, ``cfg_options`` and ``samples``, how many of a view.

    Raises:
        SystemExit: If no teacher of the config has a store.
    """
    random, found = np.random.default_rng(), {}  # type: ignore[var-annotated]

    def choose(source: Stored, view: int) -> Array:
        assert source.records is not None
        written = np.flatnonzero(source.records.written(view))
        return np.sort(random.choice(written, min(args.samples, len(written)), replace=False))

    def visit(source: Stored, view: int, batch: Batch, indices: Array) -> None:
        assert source.records is not None
        kept, whole = source.records.read(view, indices)
        fresh = source.computed(batch)
        for tap, form in source.records.header.forms.items():
            for temperature in form.temperatures or (None,):
                then, now = (form.decode(records[tap][whole], temperature) for records in (kept, fresh))
                spread = float((now.max() - now.min()).clamp_min(1e-6)) if len(now) else 1.0
                worst = float((then - now).abs().max()) / spread if len(now) else 0.0
                name = f'{source.name}: {tap}'
                before = found.get(name, Recheck(name, 0, 0.0))
                found[name] = Recheck(name, before.compared + len(now), max(before.difference, worst))

    _run(args, dict(choose=choose, visit=visit, awake=True))
    return list(found.values())


def stores_of(config: str | Path, cfg_options: Mapping[str, Any] | None = None) -> list[Path]:
    """The folders of the stores that a config's teachers have.

    Raises:
        SystemExit: If there is none.
    """
    return [store.path for store in _read(config, cfg_options)[1]]


def _read(path: str | Path, cfg_options: Mapping[str, Any] | None) -> tuple[Config, list[StoreOptions]]:
    config = Config.fromfile(path)
    config.merge_from_dict(dict(cfg_options or {}))
    model = config.get('model', {})
    specs = {'teacher': model.get('teacher'), **(model.get('teachers') or {})}
    given = {n: spec['store'] for n, spec in specs.items() if isinstance(spec, Mapping) and 'store' in spec}
    if not given:
        raise SystemExit(f"{path}: no teacher has a store: give one store=dict(path='work_dirs/...', views=10)")
    return config, [StoreOptions.read(store, name) for name, store in given.items()]


def _run(args: argparse.Namespace, loop: dict[str, Any]) -> None:
    """A run of a config that only shows its images."""
    os.environ.setdefault('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    config, stores = _read(args.config, args.cfg_options)
    if config.get('default_scope') == 'mmpretrain':
        config.train_dataloader.setdefault('collate_fn', dict(type='default_collate'))
    for name in ('val', 'test'):
        config[f'{name}_cfg'] = config[f'{name}_dataloader'] = config[f'{name}_evaluator'] = None
    names = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
    config.default_hooks = dict.fromkeys(names)
    config.custom_hooks = [dict(type='EpochSeedHook'), dict(type='DistillHook')]
    config.param_scheduler, config.load_from, config.resume, config.launcher = None, None, False, 'none'
    views = max(store.views for store in stores)
    config.train_cfg = dict(by_epoch=True, max_epochs=views)
    config.log_level = 'WARNING'
    with tempfile.TemporaryDirectory() as folder:
        config.work_dir = folder
        import_models(config)
        runner = Runner.from_cfg(config)
        runner._train_loop = StoreLoop(runner, config.train_dataloader, views, **loop)
        runner.train()
