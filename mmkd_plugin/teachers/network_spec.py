"""From what a config says about a teacher to the network it means."""

import copy
import difflib
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn

from ..files.checkpoint import read_checkpoint, state_dict_of
from ..files.configs import read_config
from ..files.fitting import Rule, load_exactly
from ..options import check_bool
from ..randomness import keep_random_state
from .precision import Precision

#: What says which network a source has, and where its weights are.
NETWORK_KEYS = (
    'config', 'model', 'checkpoint', 'allow_missing', 'allow_unexpected', 'revise_keys', 'state_key', 'trust_pickle',
)  # fmt: skip
#: How a frozen one is run.
RUNNING_KEYS = ('optimize', 'precision', 'compile', 'stream')
_KEYS = (*NETWORK_KEYS, 'untrained', *RUNNING_KEYS)
_WEIGHTS = ('.pth', '.pt', '.ckpt', '.bin', '.safetensors', '.pkl', '.tar', '.onnx')
#: What `Distilled` adds to a student's model dict.
DISTILLED_KEYS = ('student', 'teacher', 'teachers', 'losses', 'task_loss', 'input_shape', 'start')

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
        precision: What it computes in; None for what the student's batch is in, and its autocast.
        compile: Compile what nobody looks into.
        stream: Where a GPU is used, begin its pass beside the student's, if it needs only the images.
        allow_missing: Prefixes of keys that the checkpoint may lack.
        allow_unexpected: Prefixes of keys that the checkpoint may have besides.
        revise_keys: Regular expressions and replacements for the checkpoint's keys, as in mmengine's
            ``load_checkpoint``.
        state_key: Where in the checkpoint the weights are, such as ``ema_state_dict``.
        trust_pickle: Load pickled Python objects from the checkpoint.
        classes: What it was trained to tell apart, as its checkpoint says; known once that is read.
        built: Whether it was given as a built module, weights and all.
        architecture: The model dictionary that it was built from, resolved; empty for a built module.
    """

    name: str
    model: Any
    checkpoint: str | None = None
    optimize: bool = True
    precision: Precision | None = None
    compile: bool = False
    stream: bool = False
    allow_missing: tuple[str, ...] = ()
    allow_unexpected: tuple[str, ...] = ()
    revise_keys: tuple[Rule, ...] = ()
    state_key: str | None = None
    trust_pickle: bool = False
    classes: tuple[str, ...] | None = None
    built: bool = False
    architecture: dict[str, Any] = field(default_factory=dict)

    def load_weights(self) -> None:
        """Load the checkpoint into the network; every key must match.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it cannot be read, does not fit, or holds values that are not finite.
        """
        if self.checkpoint is not None:
            checkpoint = read_checkpoint(self.checkpoint, self.trust_pickle)
            self.classes = _classes_of(checkpoint)
            if self.state_key is None and 'state_dict' in checkpoint and 'ema_state_dict' in checkpoint:
                print_log(
                    f'the checkpoint of {self.name} has weights under state_dict, which are read, and under '
                    "ema_state_dict: mmengine's EMAHook writes the averaged ones into state_dict, others may do it the "
                    "other way round (state_key='ema_state_dict')",
                    'current',
                )
            state = state_dict_of(checkpoint, self.checkpoint, self.state_key)
            load_exactly(
                self.model, state, self.checkpoint, self.allow_missing, self.allow_unexpected, self.revise_keys
            )


def _classes_of(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    inner = meta.get('dataset_meta')
    meta = inner if inner and isinstance(inner, Mapping) else meta
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
    if isinstance(spec, (str, Path)):
        spec = {'config': spec}
    if not isinstance(spec, Mapping):
        return spec
    plain = {key: value for key, value in spec.items() if key not in ('checkpoint', 'store')}
    if plain.get('type', 'Frozen') not in ('Frozen', 'Route'):
        return plain
    for key in ('type', 'anchors', 'switch', 'by_epoch'):
        plain.pop(key, None)
    return {**plain, 'untrained': True}


def build_teacher(
    spec: Any, name: str = 'teacher', student: nn.Module | None = None, trained: bool = True
) -> TeacherSpec:
    """Build the network that a teacher's spec means; its weights are loaded later.

    Args:
        spec: A config name or path, a dict with ``config`` or ``model`` and ``checkpoint``, or a
            built module (already trained).
        name: What it is called in errors.
        student: Whose data preprocessor a ``model`` dict without one gets.
        trained: Whether it must have weights: False for one that is to learn, which starts from those of
            ``checkpoint`` or from its own initialisation.

    Raises:
        TypeError: If the spec, its config, model or checkpoint is of another kind.
        ValueError: If its keys or their values are not understood, or say nothing about the weights.
        FileNotFoundError: If the config does not exist.
    """
    if isinstance(spec, nn.Module):
        return TeacherSpec(name, spec, built=True)
    if isinstance(spec, (str, Path)):
        spec = {'config': spec}
    if not isinstance(spec, Mapping):
        raise TypeError(f'{name}={spec!r} given, expected one of: {EXAMPLE}')
    spec = dict(spec)
    _check_keys(spec, name, _KEYS if trained else NETWORK_KEYS)
    checkpoint = spec.get('checkpoint')
    if checkpoint is not None and (not isinstance(checkpoint, (str, Path)) or not str(checkpoint)):
        raise TypeError(f'{name} has checkpoint={checkpoint!r}, expected a path or an address')
    untrained = _flag(spec, 'untrained', False, name)
    if untrained and checkpoint is not None:
        raise ValueError(f"{name} says untrained=True and checkpoint='{checkpoint}': drop one")
    options: dict[str, Any] = dict(
        optimize=_flag(spec, 'optimize', True, name),
        precision=Precision.read(spec.get('precision'), name),
        compile=_flag(spec, 'compile', False, name),
        stream=_flag(spec, 'stream', False, name),
        allow_missing=_prefixes(spec, 'allow_missing', name),
        allow_unexpected=_prefixes(spec, 'allow_unexpected', name),
        revise_keys=_rules(spec.get('revise_keys', ()), name),
        state_key=_state_key(spec.get('state_key'), name),
        trust_pickle=_flag(spec, 'trust_pickle', False, name),
    )
    model, published = _read_model(spec, name, student)
    built = isinstance(model, nn.Module)
    if checkpoint is None and trained and not untrained and not built:
        checkpoint = published
        if checkpoint is None:
            raise ValueError(
                f"{name} has no weights: add checkpoint='path/to/teacher.pth'. (For a teacher of "
                'random weights, as in some ablations, say untrained=True.)'
            )
    architecture = {} if built else dict(model)
    if not built:
        # the weights of one that is trained come from a file; those of others must differ from each other
        with keep_random_state() if trained else nullcontext():
            model = MODELS.build(model)
    return TeacherSpec(
        name, model, None if checkpoint is None else str(checkpoint), built=built, architecture=architecture, **options
    )


def _check_keys(spec: Mapping[str, Any], name: str, known: tuple[str, ...]) -> None:
    if unknown := [key for key in spec if key not in known]:
        near = difflib.get_close_matches(str(unknown[0]), known, n=2)
        raise ValueError(
            f'{name} has the unknown keys {unknown}'
            + (f' (did you mean {" or ".join(near)}?)' if near else '')
            + f'. Known: {", ".join(known)}. Examples: {EXAMPLE}'
        )
    if ('config' in spec) == ('model' in spec):
        raise ValueError(f"{name} needs either 'config' or 'model', got {sorted(spec)}: {EXAMPLE}")


def _read_model(spec: Mapping[str, Any], name: str, student: nn.Module | None) -> tuple[Any, str | None]:
    """The model dict or built module that a spec means, and the address of its published weights."""
    if 'config' in spec:
        given = spec['config']
        if not isinstance(given, (str, Path)):
            raise TypeError(f"{name} has config={given!r}, expected a path or 'package::path'")
        if str(given).lower().endswith(_WEIGHTS):
            raise ValueError(
                f"{name} has the checkpoint '{given}' in place of a config, and a checkpoint does not say what network "
                f"it is of: give both, dict(config='my_teacher.py', checkpoint='{given}')"
            )
        config, published = read_config(str(given))
        return model_of(config, str(given)), published
    model = spec['model']
    if isinstance(model, nn.Module):
        return model, None
    if not isinstance(model, Mapping) or 'type' not in model:
        raise TypeError(f"{name} has model={model!r}, expected dict(type='ImageClassifier', ...) or a built module")
    model = plain_student(model)
    if preprocessor := getattr(student, 'data_preprocessor', None):
        model.setdefault('data_preprocessor', copy.deepcopy(preprocessor))
    return model, None


def _flag(spec: Mapping[str, Any], key: str, default: bool, name: str) -> bool:
    return check_bool(spec.get(key, default), f'{name}: {key}')


def _prefixes(spec: Mapping[str, Any], key: str, name: str) -> tuple[str, ...]:
    value = spec.get(key, ())
    words = (value,) if isinstance(value, str) else value
    # an empty prefix would allow everything
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"{name}: {key}={value!r} given, expected prefixes of keys such as ['head.']")
    return tuple(words)


def _rules(value: Any, name: str) -> tuple[Rule, ...]:
    """What ``revise_keys`` says, checked."""
    pairs: Any = value if isinstance(value, (list, tuple)) else [None]
    for pair in pairs:
        words = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(word, str) for word in pair)
        if not words:
            raise ValueError(
                f'{name}: revise_keys={value!r} given, expected pairs of a regular expression and what replaces it, '
                r"such as [('^model\\.', '')]"
            )
        try:
            re.compile(pair[0])
        except re.error as error:
            raise ValueError(f'{name}: revise_keys has {pair[0]!r}, no regular expression: {error}') from error
    return tuple((pattern, replacement) for pattern, replacement in pairs)


def _state_key(value: Any, name: str) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ValueError(f"{name}: state_key={value!r} given, expected a key of the checkpoint, as 'ema_state_dict'")
    return value


def model_of(config: Config, name: str) -> ConfigDict:
    """The plain student's model dict of a whole config, as mmengine's Runner would build it.

    Args:
        config: A training config, distilled or not.
        name: What it is called in the error.

    Raises:
        ValueError: If it has no model.
    """
    if not isinstance(config.get('model'), Mapping):
        raise ValueError(f"config '{name}' has no `model` dictionary: is it a whole training config?")
    model = plain_student(config.model)
    if 'data_preprocessor' in config:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    if 'default_scope' in config:
        model.setdefault('_scope_', config.default_scope)
    return model
