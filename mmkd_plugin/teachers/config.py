"""From what a config says about a teacher to the network it means."""

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from torch import nn

from ..checkpoint import load_exactly, read_checkpoint, state_dict_of
from ..paths import read_config
from ..randomness import keep_random_state

_KEYS = (
    'config', 'model', 'checkpoint', 'untrained', 'optimize', 'allow_missing', 'allow_unexpected',
    'trust_pickle',
)  # fmt: skip
#: What `Distilled` adds to a student's model dict.
DISTILLED_KEYS = ('student', 'teacher', 'teachers', 'losses', 'task_loss', 'input_shape')

EXAMPLE = (
    "teacher='mmpretrain::resnet/resnet34_8xb32_in1k.py' (model zoo, published weights), "
    "teacher=dict(config='my_teacher.py', checkpoint='work_dirs/my_teacher/epoch_100.pth'), "
    "teacher=dict(model=dict(type='ImageClassifier', ...), checkpoint='...') or a built module"
)


@dataclass
class TeacherSpec:
    """A teacher that is built, and where its weights come from.

    Args:
        name: What it is called in configs and errors.
        model: The network; weights still random unless ``checkpoint`` is None.
        checkpoint: Path or address of its weights; None when it needs none.
        optimize: Fold batch norms and use channels_last.
        allow_missing: Prefixes of keys that the checkpoint may lack.
        allow_unexpected: Prefixes of keys that the checkpoint may have besides.
        trust_pickle: Load pickled Python objects from the checkpoint.
        classes: What it was trained to tell apart, as its checkpoint says; known once that is read.
    """

    name: str
    model: Any
    checkpoint: str | None = None
    optimize: bool = True
    allow_missing: tuple[str, ...] = ()
    allow_unexpected: tuple[str, ...] = ()
    trust_pickle: bool = False
    classes: tuple[str, ...] | None = None

    def load_weights(self) -> None:
        """Load the checkpoint into the network; every key must match.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it cannot be read or does not fit.
        """
        if self.checkpoint is not None:
            checkpoint = read_checkpoint(self.checkpoint, self.trust_pickle)
            self.classes = _classes_of(checkpoint)
            state = state_dict_of(checkpoint)
            load_exactly(self.model, state, self.checkpoint, self.allow_missing, self.allow_unexpected)


def _classes_of(checkpoint: Any) -> tuple[str, ...] | None:
    meta = checkpoint.get('meta') or {} if isinstance(checkpoint, Mapping) else {}
    meta = meta.get('dataset_meta') or meta
    classes = meta.get('classes') or meta.get('CLASSES')
    return tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else None


def plain_student(model: Mapping[str, Any]) -> ConfigDict:
    """The plain student's model dict in a distilled one (any other dict comes back as it is)."""
    plain = ConfigDict(model)
    if plain.get('type') == 'Distilled' or getattr(plain.get('type'), '__name__', '') == 'Distilled':
        plain['type'] = plain['student']
        for key in DISTILLED_KEYS:
            plain.pop(key, None)
    return plain


def untrained(spec: Any) -> Any:
    """The same teacher without its weights, for tools that only look at shapes or times."""
    if isinstance(spec, str):
        spec = {'config': spec}
    if not isinstance(spec, Mapping):
        return spec
    return {**{k: v for k, v in spec.items() if k != 'checkpoint'}, 'untrained': True}


def build_teacher(spec: Any, name: str = 'teacher', student: nn.Module | None = None) -> TeacherSpec:
    """Build the network that a teacher's spec means; its weights are loaded later.

    Args:
        spec: A config name or path, a dict with ``config`` or ``model`` and ``checkpoint``, or a
            built module (already trained).
        name: What it is called in errors.
        student: Whose data preprocessor a ``model`` dict without one gets.

    Raises:
        TypeError: If the spec is of another kind.
        ValueError: If its keys are not understood, or say nothing about the weights.
        FileNotFoundError: If the config does not exist.
    """
    if isinstance(spec, nn.Module):
        return TeacherSpec(name, spec)
    if isinstance(spec, str):
        spec = {'config': spec}
    if not isinstance(spec, Mapping):
        raise TypeError(f'{name}={spec!r} given, expected one of: {EXAMPLE}')
    spec = dict(spec)
    if unknown := [key for key in spec if key not in _KEYS]:
        near = difflib.get_close_matches(unknown[0], _KEYS, n=2)
        raise ValueError(
            f'{name} has the unknown keys {unknown}'
            + (f' (did you mean {" or ".join(near)}?)' if near else '')
            + f'. Known: {", ".join(_KEYS)}. Examples: {EXAMPLE}'
        )
    if ('config' in spec) == ('model' in spec):
        raise ValueError(f"{name} needs either 'config' or 'model', got {sorted(spec)}: {EXAMPLE}")

    published = None
    if 'config' in spec:
        if not isinstance(spec['config'], (str, Path)):
            raise TypeError(f"{name} has config={spec['config']!r}, expected a path or 'package::path'")
        config, published = read_config(str(spec['config']))
        model = _model_of(config, str(spec['config']))
    else:
        model = spec['model']
        if not isinstance(model, (Mapping, nn.Module)) or (isinstance(model, Mapping) and 'type' not in model):
            raise TypeError(f"{name} has model={model!r}, expected dict(type='ImageClassifier', ...) or a built module")
        if isinstance(model, Mapping):
            model = plain_student(model)
            if preprocessor := getattr(student, 'data_preprocessor', None):
                model.setdefault('data_preprocessor', copy.deepcopy(preprocessor))
    untrained = bool(spec.get('untrained', False))
    checkpoint = spec.get('checkpoint')
    if checkpoint is None and not untrained and not isinstance(model, nn.Module):
        checkpoint = published
        if checkpoint is None:
            raise ValueError(
                f"{name} has no weights: add checkpoint='path/to/teacher.pth'. (For a teacher of "
                'random weights, as in some ablations, say untrained=True.)'
            )
    if untrained and checkpoint is not None:
        raise ValueError(f"{name} says untrained=True and checkpoint='{checkpoint}': drop one")
    if not isinstance(model, nn.Module):
        with keep_random_state():
            model = MODELS.build(model)
    return TeacherSpec(
        name, model, checkpoint,
        optimize=bool(spec.get('optimize', True)),
        allow_missing=_prefixes(spec, 'allow_missing'),
        allow_unexpected=_prefixes(spec, 'allow_unexpected'),
        trust_pickle=bool(spec.get('trust_pickle', False)),
    )  # fmt: skip


def _prefixes(spec: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = spec.get(key, ())
    return (value,) if isinstance(value, str) else tuple(value)


def _model_of(config: Config, name: str) -> ConfigDict:
    """The model dict of a whole config, as mmengine's Runner would build it."""
    if 'model' not in config:
        raise ValueError(f"config '{name}' has no `model`: is it a whole training config?")
    model = plain_student(config.model)
    if 'data_preprocessor' in config:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    if 'default_scope' in config:
        model.setdefault('_scope_', config.default_scope)
    return model
