"""Which networks are compared: the checkpoints of runs of one student, and its teachers."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor

from ...files.checkpoint import read_checkpoint, state_dict_of
from ...files.fitting import load_exactly
from ...networks.weights import PATH_LENGTH, explained_in, flat, weights_at
from ...teachers import Frozen, build_source
from ...teachers.network_spec import model_of
from ..learning import path_length

_NAME = re.compile(r'(epoch|iter)_(\d+)')


@dataclass
class Checkpoint:
    """Weights at one time of a run.

    Attributes:
        number: Epoch or iteration, as its file is called; -1 where that says none.
        path: Of the file.
        digest: Of its weights.
        paths: By layer, the path length over optimizer steps, divided by the norm of the first weights; where
            ``PathLengthHook`` wrote it.
    """

    number: int
    path: str
    digest: str = ''
    paths: dict[str, float] = field(default_factory=dict)


@dataclass
class Run:
    """The checkpoints of one training run, in order.

    Attributes:
        role: ``baseline``, ``student`` or the teacher's name.
        name: What it was given as.
        checkpoints: Those that are looked at.
        path: By layer, the path length at each of them; empty for a single checkpoint.
        by_steps: Whether that path is over optimizer steps, or else over the checkpoints.
    """

    role: str
    name: str
    checkpoints: list[Checkpoint]
    path: dict[str, Tensor] = field(default_factory=dict)
    by_steps: bool = False
    start: Checkpoint | None = None


def build_student(config: Config) -> Any:
    """The plain student of a config, with weights that come later, still and in evaluation mode."""
    model = MODELS.build(model_of(config, str(config.filename)))
    model.requires_grad_(False)
    model.eval()  # apart: the eval() of mmpretrain's backbones returns None
    return model


def read_runs(given: Sequence[str], role: str, at_most: int | None = None) -> list[Run]:
    """Runs from what the command line names: a checkpoint, or a run's folder.

    Of a folder the checkpoints of ``PathLengthHook`` count, which are in ``FOLDER/explain``, or else all
    ``epoch_N.pth`` or ``iter_N.pth`` in it.

    Args:
        given: Files and folders.
        role: What they are.
        at_most: So many checkpoints of each, spread evenly over them, the last included; None is all.

    Raises:
        FileNotFoundError: If there is no such file, or a folder has no checkpoints.
        ValueError: If one is given twice.
    """
    if len(set(given)) < len(given):
        raise ValueError(f'{role}: {", ".join(given)} given, expected each run once')
    return [_read_run(name, role, at_most) for name in given]


def _read_run(name: str, role: str, at_most: int | None) -> Run:
    path = Path(name).expanduser()
    if not path.is_dir():
        if '://' not in name and not path.is_file():
            raise FileNotFoundError(
                f"checkpoint '{name}' of the {role} does not exist (looked at {path.absolute()}); training writes "
                'work_dirs/CONFIG/epoch_N.pth'
            )
        match = _NAME.fullmatch(path.stem)
        return Run(role, name, [Checkpoint(int(match[2]) if match else -1, name)])
    own = explained_in(path)
    folder = own if own.is_dir() else path
    found = {(match[1], int(match[2])): file for file in folder.glob('*.pth') if (match := _NAME.fullmatch(file.stem))}
    if not found:
        raise FileNotFoundError(
            f"the folder '{name}' of the {role} has no checkpoints (looked for epoch_N.pth and iter_N.pth in "
            f'{folder.absolute()}): give the work folder of a run, or a file'
        )
    kinds = {kind for kind, _ in found}
    if len(kinds) > 1:
        raise ValueError(f"'{folder}' holds checkpoints by epoch and by iteration, expected those of one run")
    numbers = sorted(number for _, number in found)
    kind = kinds.pop()
    checkpoints = [Checkpoint(number, str(found[kind, number])) for number in numbers]
    # the start is where paths begin; what an untrained network discards says nothing
    start = checkpoints.pop(0) if len(numbers) > 1 and numbers[0] == 0 else None
    if at_most is not None and len(checkpoints) > at_most:
        last = len(checkpoints) - 1
        places = sorted({round(last * i / (at_most - 1)) for i in range(at_most)}) if at_most > 1 else [last]
        checkpoints = [checkpoints[i] for i in places]
    return Run(role, name, checkpoints, start=start)


def prepare(run: Run, model: Any, layers: Sequence[str]) -> None:
    """Read every checkpoint of a run once: see that it fits, tell its weights from others, and measure paths.

    Args:
        run: Is filled in.
        model: What the weights are of; ends with those of the last checkpoint.
        layers: Paths of modules whose weights' path is wanted; empty for none.

    Raises:
        ValueError: If a checkpoint is of another network, or a layer has no weights.
    """
    several = len(run.checkpoints) > 1
    weights: dict[str, list[Tensor]] = {layer: [] for layer in layers if several}
    for checkpoint in [*([run.start] if run.start and several else []), *run.checkpoints]:
        content = read_checkpoint(checkpoint.path)
        state = state_dict_of(content, checkpoint.path)
        load_exactly(model, state, checkpoint.path)
        checkpoint.digest = digest_of(state)
        for layer, kept in weights.items():
            kept.append(flat(weights_at(model, layer, run.role)).clone())
            told = (content.get(PATH_LENGTH) or {}).get(layer)
            if told:
                checkpoint.paths[layer] = told['length'] / told['start']
    run.by_steps = several and all(set(layers) <= set(c.paths) for c in run.checkpoints)
    for layer, kept in weights.items():
        whole = path_length(kept)
        run.path[layer] = whole[len(kept) - len(run.checkpoints) :]
        if run.by_steps:
            run.path[layer] = whole.new_tensor([c.paths[layer] for c in run.checkpoints])


def between_checkpoints(run: Run, model: Any, layers: Sequence[str]) -> None:
    """Measure the paths of a run from one checkpoint to the next, because others do not tell those over steps."""
    for checkpoint in run.checkpoints:
        checkpoint.paths.clear()
    run.by_steps = False
    weights: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for checkpoint in [*([run.start] if run.start else []), *run.checkpoints]:
        load_exactly(model, state_dict_of(read_checkpoint(checkpoint.path), checkpoint.path), checkpoint.path)
        for layer, kept in weights.items():
            kept.append(flat(weights_at(model, layer, run.role)).clone())
    for layer, kept in weights.items():
        run.path[layer] = path_length(kept)[len(kept) - len(run.checkpoints) :]


def digest_of(state: Mapping[str, Tensor]) -> str:
    """A short name for weights, another one for other weights."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        found.update(f'{name} {tuple(value.shape)} {value.dtype}'.encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:20]


def teachers_of(config: Config, student: Any) -> dict[str, Any]:
    """The trained teachers of a distilled config with their weights, by name.

    Raises:
        ValueError: If it has none.
    """
    model = config.get('model') or {}
    specs = dict(model.get('teachers') or {'teacher': model.get('teacher')})
    found = {}
    for name, spec in specs.items():
        source = build_source(spec, name, student) if spec is not None else None
        if isinstance(source, Frozen):
            source.load()
            found[name] = source.model
    if not found:
        raise ValueError(
            f"--teacher: {config.filename} names no trained teacher, expected a config with type='Distilled' and "
            'teacher=...'
        )
    return found
