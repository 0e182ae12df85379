"""Runs that were never trained."""

import json
from pathlib import Path

from mmengine.config import Config

from mmkd_plugin.experiments import Entry, Result, Run

COUNTS = {'student': 100, 'beside': 7, 'teacher': 1000}


def entry(name, **config):
    return Entry(name, f'configs/{name}.py', Config(config))


def run(folder, name='plain', seed=0, **config):
    return Run(entry(name, **config), seed, Path(folder) / name / f'seed{seed}')


def result(value=50.0, metric='accuracy/top1', step_time=0.1, jobs=1, memory=10.0, seconds=20.0, **metrics):
    return Result({metric: value, **metrics}, step_time, memory, False, seconds, jobs, 1, COUNTS)


def finished(folder, name, values, **given):
    """A run for each value; None failed."""
    runs = [run(folder, name, seed) for seed in range(len(values))]
    for one, value in zip(runs, values, strict=True):
        if value is None:
            one.fail('ValueError: no')
        else:
            one.finish(result(value, **given))
    return runs


def log(folder, *records, attempt='20260101_000000'):
    """What mmengine writes."""
    file = Path(folder) / attempt / 'vis_data/scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return file


def trained(iteration, time=0.1, **more):
    return {'lr': 0.1, 'time': time, 'data_time': 0.01, 'iter': iteration, 'step': iteration, **more}


def validated(value, step, **more):
    return {'accuracy/top1': value, 'time': 5.0, 'data_time': 4.0, 'step': step, **more}
