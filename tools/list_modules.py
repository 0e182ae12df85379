#!/usr/bin/env python
# ruff: noqa: E402 (arguments are read before the imports that take seconds)
"""List the modules of student and teachers that a loss can tap, with their output shapes.

Prints what may stand in `on=...`: one line for each module that runs, with the shape of its output
for a batch of two, and how often it runs in one pass where that is not once. No weights are loaded.
"""

import argparse
import signal
from collections.abc import Iterator
from typing import Any


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a plain or a distilled config')
    parser.add_argument('--depth', type=int, default=4, help='levels of dots to show (default 4)')
    parser.add_argument(
        '--shape', type=int, nargs=3, metavar=('C', 'H', 'W'), help='image shape; inferred where not given'
    )
    return parser.parse_args()


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` is no error
    parse()  # answers --help and slips at once: the imports below take seconds

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

import mmkd_plugin  # noqa: F401 (registers)
from mmkd_plugin.files.configs import read_config
from mmkd_plugin.networks import evaluating, example_rois, network_of
from mmkd_plugin.teachers import build_source, plain_student, untrained


def shape_of(value: Any, index: str = '') -> str:
    """Shapes as text, indexed as a tap is: `(2, 64)`, or `[0] (2, 64), [1][0] (2, 128)` for nested tuples."""
    if isinstance(value, (tuple, list)):
        return ', '.join(shape_of(item, f'{index}[{i}]') for i, item in enumerate(value))
    shape = str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
    return f'{index} {shape}' if index else shape


def rows(model: nn.Module, images: Tensor, depth: int) -> Iterator[tuple[str, str, str]]:
    """Path, class, and shape of each module down to a depth, in the order of definition."""
    shapes: dict[str, str] = {}
    calls: dict[str, int] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            shapes[name] = shape_of(output)
            calls[name] = calls.get(name, 0) + 1

        return hook

    handles = [m.register_forward_hook(record(name)) for name, m in model.named_modules() if name]
    try:
        with evaluating(model), torch.no_grad():
            network = network_of(model)
            network.run(images, rois=dict.fromkeys(network.branches(), example_rois(images)))
    except (RuntimeError, TypeError, AttributeError, ValueError, AssertionError, IndexError) as error:
        text = f'{type(error).__name__}: {error}'.splitlines()[0]
        print(f'  (what comes later cannot be run on images alone, and not be tapped: {text})')
    for handle in handles:
        handle.remove()
    for name, module in model.named_modules():
        if name in shapes and name.count('.') < depth:
            times = f'  x{calls[name]}' if calls[name] > 1 else ''
            yield name, type(module).__name__, shapes[name] + times


def image_size(config: Config) -> int | None:
    """Side of the square images that the training pipeline ends with, where it says so."""
    size = None
    for transform in config.get('train_pipeline') or ():
        for key in ('scale', 'crop_size'):
            if isinstance(value := transform.get(key), int):
                size = value
    return size


def main() -> None:
    """Build the models and print their tables."""
    args = parse()
    try:
        config, _ = read_config(args.config)
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise SystemExit(f'list_modules.py: {error}') from error
    init_default_scope(config.get('default_scope', 'mmengine'))
    student = plain_student(config.model)
    if 'data_preprocessor' in config:
        student.setdefault('data_preprocessor', config.data_preprocessor)
    models = {'student': MODELS.build(student)}
    specs = dict(config.model.get('teachers') or {})
    if config.model.get('teacher') is not None:
        specs['teacher'] = config.model.teacher
    for name, spec in specs.items():
        source = build_source(untrained(spec), name, models['student'])
        if source.model is not None:
            models[name] = source.model

    channels, *sides = network_of(models['student']).input_shape()
    size = image_size(config)
    shape = args.shape or config.model.get('input_shape') or (channels, *([size, size] if size else sides))
    for name, model in models.items():
        print(f'\n{name}: {type(model).__name__} on images {(2, *shape)}')
        table = list(rows(model, torch.zeros(2, *shape), args.depth))
        widths = [max((len(row[i]) for row in table), default=0) for i in range(2)]
        for path, kind, output in table:
            print(f'  {path:{widths[0]}}  {kind:{widths[1]}}  {output}')


if __name__ == '__main__':
    main()
