"""One detector: what of it can be distilled, found by a training step with a copy of its config as its teacher."""

import copy
import math
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from ..distillation import Distilled, distill
from ..networks import SizeError, network_of
from .batch import detection_batch
from .columns import COLUMNS, losses_of, observed

_OURS = str(Path(__file__).parents[1])
Losses = Mapping[str, Any]
_LONGEST = 400  # letters of an error that are kept
_ROIS = 64  # of an image at most, where a sampler chooses
_SMALL = 128  # sides of images that are tried first, in pixels
_LARGE = 512  # and of the last
# what is refused most often comes first, since all that is left is tried at once
_REFUSED_FIRST = ('logits', 'crosskd', 'dense', 'ld', 'features')
#: Kinds of data preprocessors whose batches are no labelled images.
_OTHER_DATA = {
    'TrackDataPreprocessor': 'trained on videos',
    'ReIDDataPreprocessor': 'a network of identities, no detector',
    'MultiBranchDataPreprocessor': 'trained on labelled and unlabelled images; the detector inside it can be distilled',
}


class NotRunError(Exception):
    """A config that cannot be trained here, distilled or not; the message says why."""


def examine(path: str | Path) -> dict[str, Any]:
    """Try every column on a config.

    Args:
        path: The config's file.

    Returns:
        ``shape`` of the images, and ``columns``: by name ``[verdict, what was said]``. The verdict is ``works``,
        ``absent`` (the detector has nothing to compare there), ``refused`` (by a message of ours) or ``fails``. Or
        ``not_run``: why the plain detector cannot be trained here.
    """
    torch.manual_seed(0)
    try:
        config = read_untrained(path)
        for name in ('epoch', 'iter'):  # as a runner tells
            MessageHub.get_current_instance().update_info(name, 0)
        with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmdet')):
            return _examined(config)
    except NotRunError as error:
        return {'not_run': str(error)}


def read_untrained(path: str | Path) -> Config:
    """A config whose model asks for no weights, and trains on small images and without a GPU.

    Raises:
        NotRunError: If it cannot be read, or describes no detector of images.
    """
    try:
        config = Config.fromfile(str(path))
    except Exception as error:
        raise NotRunError(told(error)) from error
    if not isinstance(config.get('model'), dict):
        raise NotRunError('describes no model')
    model = config.model
    kind = str((model.get('data_preprocessor') or config.get('data_preprocessor') or {}).get('type'))
    if kind in _OTHER_DATA:
        raise NotRunError(_OTHER_DATA[kind])
    if 'detector' in model:
        raise NotRunError('a tracker around a detector; the detector inside it can be distilled')
    if 'data_preprocessor' in config:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    for node in _nodes(model):
        if (node.get('init_cfg') or {}) and 'Pretrained' in str(node.init_cfg):
            node.init_cfg = None
        if 'pretrained' in node and not isinstance(node.pretrained, bool):
            node.pretrained = None
        if str(node.get('type')).endswith('SyncBN'):  # needs a GPU
            node.type = 'BN'
        if (num := (node.get('sampler') or {}).get('num')) and num > _ROIS:
            node.sampler.num = _ROIS
        if isinstance(augments := node.get('batch_augments'), list):  # these make images of 1024 pixels
            node.batch_augments = [augment for augment in augments if augment['type'] != 'BatchFixedSizePad'] or None
    return config


def _nodes(value: Any) -> Iterator[Any]:
    """All dictionaries of a config."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from _nodes(child)


def _examined(config: Config) -> dict[str, Any]:
    plain, batch, outputs = _plain_step(config)
    shape = tuple(batch['inputs'][0].shape)
    wanted = losses_of(plain, outputs)
    columns = {name: ['absent', why] for name, why in wanted.items() if isinstance(why, str)}
    for verdict in (
        lambda some: _built(plain, some, shape),
        lambda some: _stepped(config, some, batch),
    ):
        columns |= _tried({name: wanted[name] for name in _REFUSED_FIRST if name not in columns}, verdict)
    return {'shape': list(shape), 'columns': {name: columns.get(name, ['works', '']) for name in COLUMNS}}


def _tried(losses: Losses, verdict: Callable[[Losses], list[str] | None]) -> dict[str, list[str]]:
    """The verdict of each that does not work; all are tried at once, and one by one only if that does not work."""
    if not losses or (said := verdict(losses)) is None:
        return {}
    first, *others = losses
    if not others:
        return {first: said}
    return {
        **_tried({first: losses[first]}, verdict),
        **_tried({name: losses[name] for name in others}, verdict),
    }


def _plain_step(config: Config) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """A training step of the plain detector, on the first size at which it succeeds.

    Returns:
        The detector before it, the batch, and what the detector's parts put out.
    """
    said = ''
    try:
        model = MODELS.build(copy.deepcopy(config.model))
        model.init_weights()
        network = network_of(model)
        shapes = network.input_shapes()
    except Exception as error:
        raise NotRunError(told(error)) from error
    if len(shapes) > 1:
        divisor = getattr(model.data_preprocessor, 'pad_size_divisor', 1)
        side = -(-_SMALL // divisor) * divisor
        shapes = [(shapes[0][0], side, side), *(shape for shape in shapes if shape[1] <= _LARGE)]
    scaled = [node for node in _nodes(config.get('train_pipeline') or []) if node.get('type') == 'SegRescale']
    stride = round(1 / scaled[0].scale_factor) if scaled else 1
    loads = [node for node in _nodes(config.get('train_pipeline') or []) if node.get('with_mask')]
    masks = bool(loads) or bool(getattr(model.data_preprocessor, 'pad_mask', False))
    for shape in shapes:
        outputs: dict[str, Any] = {}
        trained, batch = copy.deepcopy(model), detection_batch(shape, network.num_classes(), masks, stride)
        handles = observed(trained, outputs)
        try:
            _step(trained, copy.deepcopy(batch))
        except Exception as error:
            traceback.print_exc()
            said = said or told(error)
        else:
            return model, batch, outputs
        finally:
            for handle in handles:
                handle.remove()
    raise NotRunError(f'a plain training step fails: {said}')


def _built(plain: nn.Module, losses: Losses, shape: Any) -> list[str] | None:
    """None if distillation can be built on copies of a detector; else the verdict."""
    said = None
    for size in (shape, None):  # what the face says, if it does not run on the small one
        student, teacher = copy.deepcopy(plain), copy.deepcopy(plain)
        try:
            distill(student, _named(losses), teacher=teacher, input_shape=size)
        except SizeError as error:
            said = verdict_of(error)
        except Exception as error:
            return verdict_of(error)
        else:
            return None
    return said


def _stepped(config: Config, losses: Losses, batch: dict[str, Any]) -> list[str] | None:
    """None if a step of the distilled detector teaches by all of these; else the verdict."""
    model = copy.deepcopy(config.model)
    kind = model.pop('type')
    try:
        teacher = MODELS.build(copy.deepcopy(config.model))
        teacher.init_weights()  # some layers are made of whatever the memory holds
        distilled = Distilled(student=kind, teacher=teacher, losses=_named(losses), **model)
        distilled.init_weights()
        logged = _step(distilled, copy.deepcopy(batch))
        values = [float(logged[name]) for name in _named(losses)]
    except Exception as error:
        return verdict_of(error)
    wrong = [value for value in values if not (math.isfinite(value) and value > 0)]
    return ['fails', f'the loss is {wrong[0]:g}, where student and teacher differ'] if wrong else None


def _named(losses: Losses) -> dict[str, Any]:
    return {f'loss_{name}': loss for name, loss in losses.items()}


def _step(model: Any, batch: dict[str, Any]) -> Mapping[str, Any]:
    wrapper = OptimWrapper(torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4))
    model.train()
    return model.train_step(batch, wrapper)


def verdict_of(error: BaseException) -> list[str]:
    """Whether an error is a refusal of ours, and its first line.

    A refusal is raised by this package, about something that is not another package's crash.
    """
    traceback.print_exception(error)
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    refused = isinstance(error, (ValueError, TypeError, RuntimeError)) and not isinstance(error, SizeError)
    return ['refused' if refused and _raised_by_us(cause) else 'fails', told(error)]


def _raised_by_us(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_OURS)


def told(error: BaseException) -> str:
    """The first line of an error, without advice of other packages' and what belongs to this machine."""
    line = next(iter(str(error).strip().splitlines()), '').partition('. Please check')[0]
    line = re.sub(r'/[^\s\'"]*/site-packages/', '', line)
    for folder in (Path.cwd(), Path.home()):
        line = line.replace(f'{folder}/', '')
    name = '' if isinstance(error, (ValueError, TypeError, RuntimeError)) and line else f'{type(error).__name__}: '
    return (name + line)[:_LONGEST]
