#!/usr/bin/env python
# ruff: noqa: E402 (arguments are read before the imports that take seconds)
"""Measure a knowledge store: its files alone, a step that reads from it, and whether kills leave anything wrong.

files   a million records of 1000 float16 class scores: bytes, opening, writing and reading at random, memory
kills   two processes fill one store and are killed with SIGKILL at random moments; every record that counts as written
        is compared with what it must be
step    ResNet34 teaches ResNet18 at 224 px from a store that has all, against the plain student, interleaved in one
        run; the time of a step includes loading: JPEGs of 500x375 made for it, decoded and cropped in the same process
"""

import argparse
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

WHAT = ('files', 'kills', 'step')


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', nargs='*', choices=[*WHAT, []], default=[], help='default: all')
    parser.add_argument('--folder', type=Path, help='where to put files; default: a temporary folder')
    parser.add_argument('--entries', type=int, default=10**6, help='records of `files` (default 1000000)')
    parser.add_argument('--kills', type=int, default=20, help='moments (default 20)')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--rounds', type=int, default=10, help='measured steps of each kind (default 10)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default 1)')
    args = parser.parse_args()
    if args.rounds < 1 or args.kills < 1 or args.entries < 1000:
        parser.error('expected --rounds and --kills of at least 1, and --entries of at least 1000')
    return args


if __name__ == '__main__':
    parse()  # answers --help and slips at once: the imports below take seconds

import numpy as np
import torch

from mmkd_plugin.store import Header, Records, Shifted, Whole
from mmkd_plugin.store.records import size


def files(args: argparse.Namespace, folder: Path) -> None:
    """Records without any network."""
    form, random = Shifted((1000,), 'float16'), np.random.default_rng(0)
    path = folder / 'million'
    path.mkdir()
    header = Header({}, args.entries, (3, 224, 224), {'head.fc': form}, {})
    records = Records(path, header)
    each = records.bytes_per_record
    print(f'a record of 1000 class scores: {each} bytes, {each / 2000:.3f} of 2000')
    for views in (1, 10, 50):
        print(f'  1281167 samples x {views} views: {size(1281167 * views * each)}')
    batch = np.zeros(256, records.layout)
    batch['head.fc'] = form.encode(torch.randn(256, 1000))
    begun, count = time.perf_counter(), 0
    order = random.permutation(args.entries)
    while time.perf_counter() - begun < 5 and count + 256 <= args.entries:
        records.write(0, np.sort(order[count : count + 256]), batch)
        count += 256
    told = count / (time.perf_counter() - begun)
    print(f'written in batches of 256 at random places: {told:.0f} records/s, {size(told * each)}/s')
    written = np.flatnonzero(records.written(0))
    before = resident()
    begun = time.perf_counter()
    again = Records(path, header)
    again.read(0, written[:1])
    print(f'opened, with a first record, in {(time.perf_counter() - begun) * 1e3:.1f} ms ({args.entries} records)')
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < 3:
        got, whole = again.read(0, random.choice(written, 256))
        form.decode(got['head.fc'])
        assert whole.all()
        count += 256
    print(f'read and decoded at random, from the page cache: {count / (time.perf_counter() - begun):.0f} records/s')
    begun = time.perf_counter()
    again.complete(1)
    print(f'looked through for what is missing in {(time.perf_counter() - begun) * 1e3:.1f} ms')
    print(f'memory beside that of the page cache: {resident() - before:.0f} MiB (RssAnon)')


def resident() -> float:
    """MiB of this process that no file backs."""
    return int(Path('/proc/self/status').read_text().split('RssAnon:')[1].split()[0]) / 2**10


def kills(args: argparse.Namespace, folder: Path) -> None:
    """Writers of known records, killed."""
    path, entries, random = folder / 'killed', 4000, np.random.default_rng()
    path.mkdir()
    header = Header({}, entries, (1, 1, 1), {'fc': Whole((500,), 'float32')}, {})

    def content(indices: Any) -> Any:
        made = np.zeros(len(indices), Records(path, header).layout)
        made['fc']['values'] = indices[:, None] * 1000.0 + np.arange(500)
        return made

    wrong = torn = 0
    for _ in range(args.kills):
        pids = []
        for part in range(2):
            if (pid := os.fork()) == 0:
                try:
                    records, own = Records(path, header), np.random.default_rng([part, int(random.integers(10**6))])
                    while True:
                        indices = np.sort(own.permutation(entries)[:64])
                        records.write(0, indices, content(indices))
                finally:
                    os._exit(1)
            pids.append(pid)
        time.sleep(random.uniform(0.01, 0.3))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        records = Records(path, header)
        got, whole = records.read(0, np.arange(entries))
        wrong += int((got[whole] != content(np.flatnonzero(whole))).sum())
        torn += int((records.written(0) & ~whole).sum())
        for file in records.files(0):
            file.unlink(missing_ok=True)
    print(f'{args.kills} kills of two writers each: {wrong} wrong records; {torn} torn ones, all of them found')


def make_images(folder: Path, count: int) -> None:
    """JPEGs with the statistics of photographs in so far as decoding time depends on them: smooth, with some noise."""
    import cv2

    random = np.random.default_rng(0)
    for number in range(count):
        small = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image: Any = np.asarray(cv2.resize(small, (500, 375), interpolation=cv2.INTER_CUBIC), np.int16)
        image += random.normal(0, 12, image.shape).astype(np.int16)
        path = folder / f'{number % 10}' / f'{number:04d}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])


def step(args: argparse.Namespace, folder: Path) -> None:
    """A training step with loading, with and without a store."""
    import copy

    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import MODELS
    from mmengine.runner import Runner

    from mmkd_plugin.files.configs import read_config
    from mmkd_plugin.precompute import StoreLoop
    from mmkd_plugin.teachers import plain_student, untrained

    count = args.batch_size * 4
    make_images(folder / 'images', count)
    config, _ = read_config('mmkd_plugin::_base_/pairs/resnet34_resnet18_8xb32_in1k.py')
    config.train_dataloader.update(batch_size=args.batch_size, num_workers=0, persistent_workers=False)
    pipeline = config.train_dataloader.dataset.pipeline
    config.train_dataloader.dataset = dict(type='CustomDataset', data_root=str(folder / 'images'), pipeline=pipeline)
    config.train_dataloader.collate_fn = dict(type='default_collate')
    config.model.losses = dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=1.0))
    store = dict(path=str(folder / 'store'), views=1)
    config.model.teacher = {**untrained(config.model.teacher), 'store': store}
    for name in ('val', 'test'):
        config[f'{name}_cfg'] = config[f'{name}_dataloader'] = config[f'{name}_evaluator'] = None
    config.default_hooks = dict.fromkeys(
        ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
    )
    config.custom_hooks = [dict(type='EpochSeedHook'), dict(type='DistillHook')]
    config.update(param_scheduler=None, train_cfg=dict(by_epoch=True, max_epochs=1), work_dir=str(folder / 'run'))
    config.update(log_level='ERROR', randomness=dict(seed=0))

    def run(loop: type[StoreLoop]) -> None:
        runner = Runner.from_cfg(copy.deepcopy(config))
        everything = lambda source, view: np.flatnonzero(~source.records.written(view))  # noqa: E731
        read = lambda source, view, batch, indices: source.read(batch, source.wanted)  # noqa: E731
        runner._train_loop = loop(runner, config.train_dataloader, 1, everything, read)
        runner.train()

    times: dict[str, list[float]] = {'load': [], 'a': [], 'c': [], 'cpu a': [], 'cpu c': []}

    class Steps(StoreLoop):
        """Instead of filling: the two kinds of steps, in turn, each with its own loading."""

        def run(self) -> Any:
            self.runner.call_hook('before_train')
            self.runner.call_hook('before_train_epoch')
            model, loader = self.runner.model.train(), self.dataloader
            plain = plain_student(copy.deepcopy(config.model))
            plain.setdefault('data_preprocessor', config.data_preprocessor)
            models = {'a': MODELS.build(plain).train(), 'c': model}
            wrappers = {k: build_optim_wrapper(m, copy.deepcopy(config.optim_wrapper)) for k, m in models.items()}
            assert all(source.asleep for source in model.distill.teachers.values())
            for number in range(args.rounds + 2):
                first = number * args.batch_size % count
                for kind in 'ac' if number % 2 else 'ca':
                    begun, busy = time.perf_counter(), time.process_time()
                    data = loader.collate_fn([loader.dataset[i] for i in range(first, first + args.batch_size)])
                    loaded = time.perf_counter()
                    models[kind].train_step(data, wrappers[kind])
                    if number >= 2:
                        times[f'cpu {kind}'].append(time.process_time() - busy)
                        times[kind].append(time.perf_counter() - begun)
                        times['load'].append(loaded - begun)
            return model

    run(StoreLoop)  # fills
    run(Steps)
    median = {kind: statistics.median(values) for kind, values in times.items()}
    ratios = [c / a for a, c in zip(times['a'], times['c'], strict=True)]
    print(
        f'ResNet34 -> ResNet18, 224 px, batch {args.batch_size}, CPU, {args.threads} thread(s), torch '
        f'{torch.__version__}, {args.rounds} interleaved rounds; medians'
    )
    ms = {kind: f'{value * 1e3:.0f} ms' for kind, value in median.items()}
    print(f'a  plain step with loading       {ms["a"]}, of which loading {ms["load"]}')
    print(f'c  step from the store, the same {ms["c"]}')
    cpu = [c / a for a, c in zip(times['cpu a'], times['cpu c'], strict=True)]
    print(f'c / a                            {statistics.median(ratios):.3f} (median of the rounds)')
    print(f'the same by CPU time             {statistics.median(cpu):.3f} (which neighbours do not disturb)')


def main() -> None:
    """Measure and print."""
    args = parse()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for what in args.what or WHAT:
            {'files': files, 'kills': kills, 'step': step}[what](args, Path(folder))


if __name__ == '__main__':
    main()
