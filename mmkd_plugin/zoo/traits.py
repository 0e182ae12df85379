"""What a config says of its task, data and network, without building anything."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from ..teachers import plain_student

_PARTS = ('type', 'backbone', 'neck', 'head', 'bbox_head', 'roi_head')
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@dataclass(frozen=True)
class Traits:
    """What has to be equal for one model to teach another.

    Attributes:
        task: As metafiles call it: ``Image Classification``, ``Object Detection``, or empty.
        data: Class of the innermost data set; empty where the config has none.
        names: Of the classes, where the config gives them.
        classes: Their number; None where it is not told.
        backbone: Its class.
        network: Backbone, neck and head without losses, as text: equal for models with the same layers.
        size: Side of the images that pipelines end with, in pixels, of classifiers; None where it is not told.
    """

    task: str
    data: str
    names: tuple[str, ...]
    classes: int | None
    backbone: str
    network: str
    size: int | None

    @classmethod
    def of(cls, config: Config) -> 'Traits':
        """Read them.

        Args:
            config: A whole config, distilled or not.

        Raises:
            ValueError: If it has no model.
        """
        if not isinstance(config.get('model'), Mapping):
            raise ValueError('it has no `model` dictionary: is it a whole training config?')
        model = plain_student(config.model).to_dict()
        task = 'Object Detection' if 'bbox_head' in model or 'roi_head' in model else ''
        task = task or ('Image Classification' if 'head' in model else '')
        sets = [data for name in _LOADERS for data in _data_sets((config.get(name) or {}).get('dataset'))]
        names = next(
            (tuple(meta['classes']) for data in sets if (meta := data.get('metainfo') or {}).get('classes')), ()
        )
        backbone = model.get('backbone')
        return cls(
            task=task,
            data=next((_name(data['type']) for data in sets if 'type' in data), ''),
            names=tuple(map(str, names)),
            classes=next(_numbers(model, 'num_classes', heads=True), None),
            backbone=_name(backbone.get('type')) if isinstance(backbone, Mapping) else '',
            network=repr({key: _layers(model.get(key)) for key in _PARTS}),
            size=_size(config) if task == 'Image Classification' else None,
        )  # fmt: skip


def _name(kind: Any) -> str:
    return str(getattr(kind, '__name__', kind)).rpartition('.')[-1]


def _data_sets(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """The innermost data sets of a config's, through wrappers."""
    if isinstance(dataset, (list, tuple)):
        for one in dataset:
            yield from _data_sets(one)
    elif isinstance(dataset, Mapping):
        inner = dataset.get('dataset', dataset.get('datasets'))
        if inner is None:
            yield dataset
        else:
            yield from _data_sets(inner)


def _numbers(model: Any, key: str, heads: bool = False) -> Iterator[int]:
    """Values of a key, in heads first: those of the last box branch, of a dense head, of a classifier."""
    if isinstance(model, (list, tuple)):
        for one in reversed(model):
            yield from _numbers(one, key)
    elif isinstance(model, Mapping):
        if heads:
            for name in ('roi_head', 'bbox_head', 'head', 'backbone'):  # the classifier of VGG lies in its backbone
                yield from _numbers(model.get(name), key)
            return
        if isinstance(model.get(key), int):
            yield model[key]
        for name, value in model.items():
            if name not in ('mask_head', 'semantic_head'):
                yield from _numbers(value, key)


def _layers(part: Any) -> Any:
    """A part of a model without what changes no layer: losses, initialisation, freezing, metrics."""
    left_out = ('init_cfg', 'topk', 'cal_acc', 'frozen_stages', 'norm_eval', 'train_cfg', 'test_cfg')
    if isinstance(part, Mapping):
        kept = {k: v for k, v in part.items() if k not in left_out and not str(k).startswith('loss')}
        return {key: _layers(kept[key]) for key in sorted(kept)}
    return [_layers(one) for one in part] if isinstance(part, (list, tuple)) else part


def _size(config: Config) -> int | None:
    """That of the last transform that sets one, of the test pipeline or else of the training pipeline."""
    for name in reversed(_LOADERS):
        found = None
        for data in _data_sets((config.get(name) or {}).get('dataset')):
            for transform in data.get('pipeline') or ():
                for key in ('crop_size', 'scale'):
                    value = transform.get(key) if isinstance(transform, Mapping) else None
                    value = value[0] if isinstance(value, (list, tuple)) and value else value
                    found = value if isinstance(value, int) else found
        if found:
            return found
    return None
