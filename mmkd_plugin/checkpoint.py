"""Reading checkpoints without running code from them."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import Tensor, nn

_SHOWN = 8


# what mmengine pickles as `getattr(class, name)`, and nothing else
_METHODS = {
    HistoryBuffer: ('min', 'max', 'mean', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _known_method(owner: Any, name: str) -> Any:
    """What stands in for ``getattr`` in mmengine's checkpoints."""
    if isinstance(owner, type) and name in _METHODS.get(owner, ()):
        return getattr(owner, name)
    raise UnpicklingError(f'refused to look up {name!r} of {owner!r} while reading a checkpoint')


def allow_mmengine_globals() -> None:
    """Let ``torch.load(weights_only=True)`` read what mmengine puts into its own checkpoints.

    That is the message hub's history buffers (numpy arrays and statistics methods) and the
    annealing function of one-cycle schedules. Without it, upstream mmengine cannot resume its own
    files. Python's ``getattr``, which those files name, is replaced by a function that knows
    these methods only.
    """
    multiarray = getattr(np, '_core', None) or np.core
    allowed: list[Any] = [*_METHODS, np.ndarray, np.dtype, (_known_method, 'builtins.getattr')]
    for name in ('_reconstruct', 'scalar'):
        function = getattr(multiarray.multiarray, name)
        allowed += [(function, f'numpy.{core}.multiarray.{name}') for core in ('core', '_core')]
    allowed += [type(np.dtype(kind)) for kind in ('float64', 'float32', 'int64', 'int32', 'uint32')]
    torch.serialization.add_safe_globals(allowed)


@contextmanager
def _pickle_forced(allowed: bool) -> Iterator[None]:
    """Make every ``torch.load`` inside refuse (or, on the user's word, take) pickled code.

    By torch's own two switches, which override what callers such as mmengine ask for.
    """
    names = ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[allowed]] = '1'
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def read_checkpoint(source: str | Path, trust_pickle: bool = False) -> dict[str, Any]:
    """Read a checkpoint from a file or from what mmengine can fetch (http, torchvision://, ...).

    Args:
        source: Path or address.
        trust_pickle: Allow pickled Python objects. They can run any code: only for files that
            you made yourself.

    Returns:
        The checkpoint, on the CPU.

    Raises:
        TypeError: If the source is no path.
        FileNotFoundError: If a local path does not exist.
        ValueError: If the file cannot be read, holds pickled code, or is no dictionary.
    """
    if not isinstance(source, (str, Path)):
        raise TypeError(f'checkpoint={source!r} given, expected a path or an address')
    source = str(source)
    allow_mmengine_globals()  # again: onedl's mmengine takes them off the list after each of its own loads
    try:
        with _pickle_forced(allowed=trust_pickle):
            if '://' in source:
                from mmengine.runner.checkpoint import CheckpointLoader

                checkpoint = CheckpointLoader.load_checkpoint(source, map_location='cpu')
            else:
                path = Path(source).expanduser()
                if not path.is_file():
                    raise FileNotFoundError(
                        f"checkpoint '{source}' does not exist (looked at {path.absolute()}). "
                        'Train the teacher first, or give the path or address of its weights'
                    )
                checkpoint = torch.load(path, map_location='cpu', weights_only=not trust_pickle)
    except UnpicklingError as error:
        found = re.search(r'GLOBAL (\S+)', str(error))
        what = f' ({found[1]})' if found else ''
        raise ValueError(
            f"checkpoint '{source}' is damaged or holds pickled Python objects{what}, which can "
            'run any code when loaded. Save plain tensors instead '
            '(torch.save(model.state_dict(), path)), or, only if you made the file yourself, set '
            'trust_pickle=True beside its path'
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"checkpoint '{source}' cannot be read: {str(error)[:200] or type(error).__name__}. "
            'Is it complete, and a file written by torch.save?'
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f"checkpoint '{source}' holds a {type(checkpoint).__name__}, expected a dictionary of "
            'tensors or one with the key state_dict'
        )
    return dict(checkpoint)


def state_dict_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The student-style weights in a checkpoint: unwrapped, without ``distill.`` keys."""
    state = checkpoint.get('state_dict', checkpoint)
    if all(key.startswith('module.') for key in state):
        state = {key.removeprefix('module.'): value for key, value in state.items()}
    return {key: value for key, value in state.items() if not key.startswith('distill.')}


def load_exactly(
    model: nn.Module,
    state: Mapping[str, Any],
    source: str,
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
) -> None:
    """Load weights; every key and shape must match.

    Args:
        model: What to load into.
        state: Names and tensors.
        source: What the weights are called in the error.
        allow_missing: Prefixes of the model's keys that may be absent.
        allow_unexpected: Prefixes of extra keys that may be ignored.

    Raises:
        ValueError: If keys are missing, extra, or differ in shape.
    """
    own = model.state_dict()
    shapes = [
        f'{key}: {tuple(state[key].shape)} in the file, {tuple(value.shape)} in the model'
        for key, value in own.items()
        if isinstance(state.get(key), Tensor) and state[key].shape != value.shape
    ]
    missing = [k for k in own if k not in state and not k.startswith(tuple(allow_missing))]
    # files older than this counter lack it, and nothing reads it in evaluation
    missing = [k for k in missing if not k.endswith('.num_batches_tracked')]
    extra = [k for k in state if k not in own and not k.startswith(tuple(allow_unexpected))]
    problems = [
        f'{len(keys)} {what}: {", ".join(keys[:_SHOWN])}' + (' ...' if len(keys) > _SHOWN else '')
        for what, keys in (
            ('missing (in the model, not in the file)', missing),
            ('unexpected (in the file, not in the model)', extra),
            ('of another shape', shapes),
        )
        if keys
    ]
    if problems:
        raise ValueError(
            f"'{source}' does not fit {type(model).__name__}:\n  " + '\n  '.join(problems) + '\n'
            'Give the config that this file was trained with. Keys that may differ are named by '
            "prefix: allow_missing=['...'], allow_unexpected=['...']"
        )
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
