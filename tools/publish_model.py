#!/usr/bin/env python
# ruff: noqa: E402 (arguments are read before the imports that take seconds)
"""Write the slim, plain student in a checkpoint: no optimizer, no run state, no `distill.` keys.

No file is overwritten: neither the checkpoint, nor (without --force) one that has the final name already.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help='checkpoint of a training run')
    parser.add_argument('target', help='where to write; a hash is added to the name')
    parser.add_argument('--config', help='of the training run: the weights must fit its plain student')
    parser.add_argument('--state-key', metavar='KEY', help='where the weights are, such as ema_state_dict')
    parser.add_argument('--peer', metavar='NAME', help='one that learned beside the student, instead of it')
    parser.add_argument('--force', action='store_true', help='replace a file of the final name')
    return parser.parse_args(argv)


if __name__ == '__main__':
    parse()  # answers --help and slips at once: the imports below take seconds

from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import mmkd_plugin  # noqa: F401 (registers)
from mmkd_plugin.files.addresses import local_path
from mmkd_plugin.files.atomic import checkpoint_bytes, write_bytes
from mmkd_plugin.files.checkpoint import read_checkpoint, state_dict_of, weights_in
from mmkd_plugin.files.configs import read_config
from mmkd_plugin.files.fitting import check_finite, misfits, told
from mmkd_plugin.teachers import build_source
from mmkd_plugin.teachers.network_spec import model_of


def slim(
    checkpoint: Mapping[str, Any], source: str, state_key: str | None = None, peer: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The plain student in a checkpoint.

    Args:
        checkpoint: A checkpoint of mmengine. With EMAHook its `state_dict` holds the averaged weights.
        source: What it is called in errors.
        state_key: Where its weights are, if not in `state_dict`.
        peer: The one that is meant instead of the student.

    Returns:
        What is to be published, and the names of what is dropped.

    Raises:
        ValueError: If these are no weights.
    """
    weights, state = weights_in(checkpoint, source, state_key), state_dict_of(checkpoint, source, state_key, peer)
    others = [k for k, v in state.items() if not isinstance(v, Tensor) and not k.endswith('_extra_state')]
    if others:
        raise ValueError(f"'{source}' holds more than tensors: {', '.join(others[:8])}. Is it a model's state_dict?")
    if not any(isinstance(value, Tensor) and value.is_floating_point() for value in state.values()):
        raise ValueError(f"'{source}' holds no floating-point tensors of a student: {', '.join(list(state)[:8])}")

    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    kept = {k: v for k, v in meta.items() if k == 'dataset_meta'}
    dropped = [] if weights is checkpoint else [k for k, v in checkpoint.items() if k != 'meta' and v is not weights]
    dropped += [f'meta.{k}' for k in meta if k not in kept]
    if removed := len(weights) - len(state):
        learnable = sum(key.removeprefix('module.').startswith('distill.') for key in weights)
        if peer is not None:
            dropped.append(f'{removed} tensors of the student and of all else that learned')
            return {'meta': kept, 'state_dict': state}, dropped
        dropped.append(f'{learnable} distill. tensors' if learnable else f'{removed} counters of averaging')
    return {'meta': kept, 'state_dict': state}, dropped


def student_of(config: str, peer: str | None = None) -> nn.Module:
    """The plain student of a config, distilled or not; or a peer of it.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it cannot be built.
    """
    try:
        read, _ = read_config(config)
        student = MODELS.build(model_of(read, config))
        if peer is None:
            return student
        spec = dict((read.model.get('teachers') or {'teacher': read.model.get('teacher')})[peer])
        with DefaultScope.overwrite_default_scope(read.get('default_scope')):  # a peer's own dict does not say it
            source = build_source({key: value for key, value in spec.items() if key != 'checkpoint'}, peer, student)
        if not (source.learns and source.apart):
            raise ValueError(f"'{peer}' is a {type(source).__name__}, and no model of its own that learned beside it")
        return source.model
    except (FileNotFoundError, ModuleNotFoundError):
        raise
    except Exception as error:  # configs are programs, and can raise anything
        raise ValueError(f"the student of config '{config}' cannot be built: {error}") from error


def publish(
    source: str,
    target: str,
    config: str | None = None,
    force: bool = False,
    state_key: str | None = None,
    peer: str | None = None,
) -> Path:
    """Write ``target`` with the first 8 digits of its SHA-256 in its name, as mmdet's tool does, and say what is in it.

    Args:
        source: See :func:`slim`.
        target: Such as ``student.pth``; becomes ``student-1a2b3c4d.pth``. Missing folders are made.
        config: The config that it was trained with; its plain student must take the weights strictly.
        force: Replace a file of the final name that has other content.
        state_key: See :func:`slim`.
        peer: See :func:`slim`.

    Returns:
        Where it is.

    Raises:
        FileNotFoundError: If there is no such file.
        FileExistsError: If a file of the final name has other content.
        ValueError: If the source cannot be read, holds no student, or not the config's.
    """
    path = Path(target).expanduser()
    if target.endswith('/') or path.is_dir():
        raise ValueError(f"target '{target}' is a folder, expected a file name such as {path / 'student.pth'}")
    published, dropped = slim(read_checkpoint(source), source, state_key, peer)
    state = published['state_dict']
    own = None
    if config is not None:
        model = student_of(config, peer)
        own = model.state_dict()
        if problems := misfits(own, state):
            lines = '\n  '.join(told(problems))
            raise ValueError(f"'{source}' does not fit the student ({type(model).__name__}) of '{config}':\n  {lines}")
    check_finite(state, source, own)

    data = checkpoint_bytes(published)
    stem = path.name.removesuffix('.pth').removesuffix('.pt')
    path = path.with_name(f'{stem}-{hashlib.sha256(data).hexdigest()[:8]}.pth')
    if is_there := path.is_file() and path.read_bytes() == data:
        print(f'The published model is there already: {path}')
    else:
        _write(path, data, local_path(source), force)
    numbers = sum(value.numel() for value in state.values() if isinstance(value, Tensor))
    print(f'kept:    {len(state)} tensors with {numbers:,} numbers' + (', dataset_meta' if published['meta'] else ''))
    print(f'dropped: {", ".join(map(str, dropped)) or "nothing"}')
    before = local_path(source)
    print(f'size:    {f"{before.stat().st_size:,} bytes before, " if before else ""}{len(data):,} bytes now')
    if not is_there:
        print(f'The published model is {path}')
    return path


def _write(path: Path, data: bytes, source: Path | None, force: bool) -> None:
    if path.exists():
        if source is not None and path.samefile(source):
            raise FileExistsError(f"'{path}' is the checkpoint itself, which is never overwritten: give another target")
        if not force:
            raise FileExistsError(f"'{path}' exists and has other content: give another target, or --force")
    write_bytes(path, data)


def main(argv: Sequence[str] | None = None) -> None:
    """Publish, or say in a line why not."""
    args = parse(argv)
    try:
        publish(args.source, args.target, args.config, args.force, args.state_key, args.peer)
    except (OSError, ValueError, TypeError, ImportError) as error:
        sys.exit(f'publish_model.py: {error}')


if __name__ == '__main__':
    main()
