"""Reading checkpoints without running code from them."""

import http.client
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

from .addresses import downloaded, local_path
from .file_kinds import is_safetensors, not_by_torch

_SHOWN = 12
_COUNTERS = {'steps', 'n_averaged'}  # what averaged models of mmengine and torch keep beside their `module.`


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
    """Read a checkpoint: a file of ``torch.save`` or safetensors, or what mmengine can fetch.

    Args:
        source: Path or address (http, file, torchvision://, ...).
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
    local = local_path(source)
    try:
        with _pickle_forced(allowed=trust_pickle):
            if local:
                checkpoint = _read_file(local, f"checkpoint '{source}'", trust_pickle)
            elif source.startswith(('http://', 'https://')):
                path = downloaded(source)
                called = f"checkpoint '{source}' (kept as {path}; delete that to fetch it anew)"
                checkpoint = _read_file(path, called, trust_pickle)
            else:
                from mmengine.runner.checkpoint import CheckpointLoader

                checkpoint = CheckpointLoader.load_checkpoint(source, map_location='cpu')
    except UnpicklingError as error:
        found = re.search(r'GLOBAL (\S+)', str(error))
        what = f'holds pickled Python objects ({found[1]})' if found else 'is damaged or holds pickled Python objects'
        raise ValueError(
            f"checkpoint '{source}' {what}, which can run any code when loaded. Save plain tensors instead "
            '(torch.save(model.state_dict(), path)), or, only if you made the file yourself, set '
            'trust_pickle=True beside its path'
        ) from error
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"checkpoint '{source}' needs Python code that is not here: {error}. "
            'Save plain tensors where it is (torch.save(model.state_dict(), path))'
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, http.client.HTTPException) as error:
        raise ValueError(
            f"checkpoint '{source}' cannot be read: {str(error)[:200] or type(error).__name__}. "
            'Is it complete, and a file written by torch.save?'
        ) from error
    if not isinstance(checkpoint, Mapping):
        whole = ' (a whole model; save its state_dict() instead)' if isinstance(checkpoint, nn.Module) else ''
        raise ValueError(
            f"checkpoint '{source}' holds a {type(checkpoint).__name__}{whole}, expected a dictionary of "
            'tensors or one with the key state_dict'
        )
    return dict(checkpoint)


def _read_file(path: Path, called: str, trust_pickle: bool) -> Any:
    """What is in a file; raises ValueError for what is known not to be a checkpoint."""
    if is_safetensors(path):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f'{called} is a damaged safetensors file: {error}. Download or copy it again') from error
    if problem := not_by_torch(path):
        raise ValueError(f'{called} {problem}')
    try:
        return torch.load(path, map_location='cpu', weights_only=not trust_pickle)
    except UnpicklingError as error:
        if trust_pickle:  # nothing was refused
            raise ValueError(f'{called} is damaged: {error}. Download or copy it again') from error
        raise


def weights_in(
    checkpoint: Mapping[str, Any], source: str = 'the checkpoint', state_key: str | None = None
) -> Mapping[str, Any]:
    """The dictionary of weights in a checkpoint, as it is.

    Args:
        checkpoint: As :func:`read_checkpoint` gives it.
        source: What it is called in errors.
        state_key: Where the weights are, such as ``ema_state_dict`` or ``ema.module``. By default
            under ``state_dict``, or else the checkpoint itself.

    Raises:
        ValueError: If there are none.
    """
    found: Any = checkpoint
    if state_key is not None:
        for part in [state_key] if state_key in checkpoint else state_key.split('.'):
            found = found.get(part) if isinstance(found, Mapping) else None
    elif 'state_dict' in checkpoint:
        found = checkpoint['state_dict']
    # a bare dictionary of weights holds no other one
    elif inner := _with_tensors(checkpoint):
        raise ValueError(
            f"'{source}' has no state_dict; it holds {_contents(checkpoint)}. Say where the weights are: "
            + ' or '.join(f"state_key='{key}'" for key in inner)
        )
    if _holds_tensors(found):
        return found
    where = f"under '{state_key or 'state_dict'}' " if found is not checkpoint else ''
    others = [key for key in _with_tensors(checkpoint) if key != state_key]
    raise ValueError(
        f"'{source}' has no weights {where}(a dictionary of names and tensors was expected). It holds "
        f'{_contents(checkpoint)}'
        + (f'. Weights are under: {" or ".join(f"state_key={key!r}" for key in others)}' if others else '')
    )


def state_dict_of(
    checkpoint: Mapping[str, Any],
    source: str = 'the checkpoint',
    state_key: str | None = None,
    peer: str | None = None,
) -> dict[str, Tensor]:
    """The student-style weights in a checkpoint: unwrapped, without ``distill.`` keys.

    Args:
        checkpoint: As :func:`read_checkpoint` gives it.
        source: What it is called in errors.
        state_key: See :func:`weights_in`.
        peer: One that learned beside the student, whose weights are meant instead.

    Raises:
        ValueError: If it holds no weights, or no such peer.
    """
    state = dict(weights_in(checkpoint, source, state_key))
    if peer is not None:
        return _peers_in(state, peer, source)
    while True:
        state = {key: value for key, value in state.items() if not key.startswith('distill.')}
        wrapped = {key for key in state if key.startswith('module.')}
        if not wrapped or set(state) - wrapped - _COUNTERS:
            return state
        state = {key.removeprefix('module.'): state[key] for key in state if key in wrapped}


def _peers_in(state: Mapping[str, Tensor], peer: str, source: str) -> dict[str, Tensor]:
    """The weights of one that learned beside the student, under its own names."""
    own: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        _, found, rest = f'.{key}'.partition('.distill.peers.')
        if found:
            name, _, inner = rest.partition('.')
            own.setdefault(name, {})[inner] = value
    if peer not in own:
        raise ValueError(f"'{source}' has no peer '{peer}'; there are: {', '.join(own) or 'none'}")
    return own[peer]


def _contents(checkpoint: Mapping[str, Any]) -> str:
    """What a checkpoint holds, in words: ``epoch (int), model (a dictionary of 62 Tensor)``."""
    shown = [f'{key} ({_kind(value)})' for key, value in list(checkpoint.items())[:_SHOWN]]
    return (', '.join(shown) + (', ...' if len(checkpoint) > _SHOWN else '')) or 'nothing'


def _kind(value: Any) -> str:
    if not isinstance(value, Mapping):
        return type(value).__name__
    kinds = {type(item).__name__ for item in value.values()}
    return f'a dictionary of {len(value)} {"/".join(sorted(kinds)[:3])}' if value else 'an empty dictionary'


def _holds_tensors(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and all(isinstance(key, str) for key in value)
        and any(isinstance(item, Tensor) for item in value.values())
    )


def _with_tensors(checkpoint: Mapping[str, Any]) -> list[str]:
    """Where dictionaries of weights are in a checkpoint, one or two levels down."""
    found = []
    for key, value in checkpoint.items():
        if _holds_tensors(value) and not str(key).endswith('_extra_state'):
            found.append(str(key))
        elif isinstance(value, Mapping):
            found += [f'{key}.{inner}' for inner, item in value.items() if _holds_tensors(item)]
    return found


def fingerprint(state: Mapping[str, Any]) -> str:
    """A short text that is another one for other weights."""
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    total = sum(float(value.double().sum()) * (index + 1) for index, value in enumerate(tensors))
    return f'{len(state)}:{total:.10g}'
