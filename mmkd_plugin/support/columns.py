"""What of a detector is tried, and where: the columns of the table."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..networks import network_of
from ..networks.dense_heads import is_dense_head

#: By column, what stands above it.
COLUMNS = {
    'logits': 'logits of RoIs',
    'features': 'features',
    'dense': 'dense scores',
    'ld': 'box distributions',
    'crosskd': 'CrossKD',
}
# where heads have the convolutions before their class scores
_CONVOLUTIONS = ('cls_convs', 'multi_level_cls_convs', 'cls_subnet', 'inter_convs', 'rpn_conv')
_PUBLISHED = 2  # CrossKD reads the third convolution of RetinaNet, GFL, ATSS and FCOS


#: A loss as it would stand in a config, or why a detector has nothing that a column could compare.
Found = dict[str, Any] | str


def observed(model: nn.Module, outputs: dict[str, Any]) -> list[Any]:
    """Hooks by which a pass of a detector leaves what its parts put out.

    Args:
        model: The detector.
        outputs: Filled by path, with the first output of each part.

    Returns:
        Handles, to be removed.
    """

    def leave(path: str) -> Any:
        return lambda module, args, output: outputs.setdefault(path, output)

    parts = [path for path in ('backbone', 'neck', 'rpn_head', 'bbox_head') if _part(model, path) is not None]
    return [model.get_submodule(path).register_forward_hook(leave(path)) for path in parts]


def losses_of(model: nn.Module, outputs: Mapping[str, Any]) -> dict[str, Found]:
    """The loss of each column.

    Args:
        model: A detector.
        outputs: What its parts put out, by path.
    """
    head = next((path for path in ('bbox_head', 'rpn_head') if _part(model, path) is not None), None)
    dense: dict[str, Found] = dict.fromkeys(('dense', 'ld', 'crosskd'), 'no dense head')
    if head:
        dense = _dense(model, head, outputs)
    return {'logits': _logits(model, head), 'features': _features(outputs), **dense}


def _part(model: nn.Module, path: str) -> Any:
    part = getattr(model, path, None)
    return part if isinstance(part, nn.Module) else None


def _logits(model: nn.Module, head: str | None) -> Found:
    classifier = network_of(model).classifier()
    if classifier is None and head is None:
        return 'no classifier of boxes'
    # of a dense head it is to be refused, in words that a user meets
    return {'type': 'KDLoss', 'on': str(classifier or f'{head}[0]'), 'temperature': 1.0}


def _features(outputs: Mapping[str, Any]) -> Found:
    part = 'neck' if 'neck' in outputs else 'backbone'
    maps = outputs.get(part)
    if isinstance(maps, Tensor):
        return {'type': 'PKDLoss', 'on': part}
    taps = [f'{part}[{i}]' for i, value in enumerate(maps or ()) if isinstance(value, Tensor) and value.dim() == 4]
    return {'type': 'PKDLoss', 'on': taps} if taps else 'no feature maps'


def _dense(model: nn.Module, path: str, outputs: Mapping[str, Any]) -> dict[str, Found]:
    head, levels = _part(model, path), _levels(model, path, outputs)
    scores = [f'{path}[0][{level}]' for level in range(levels)]
    losses: dict[str, Found] = {'dense': {'type': 'DenseKDLoss', 'on': scores}}
    losses['ld'] = 'sides of boxes are numbers'
    if hasattr(head, 'integral'):
        losses['ld'] = {'type': 'LDLoss', 'on': [*scores, *(f'{path}[1][{level}]' for level in range(levels))]}
    before = _before_scores(head, path, levels)
    losses['crosskd'] = 'no convolutions of its own before the scores'
    if before:
        on = {'student': before, 'teacher': scores}
        losses['crosskd'] = {'type': 'QFLKDLoss', 'on': on, 'through': before}
    return losses


def _levels(model: nn.Module, path: str, outputs: Mapping[str, Any]) -> int:
    """Of feature maps that a dense head runs on."""
    head, output = _part(model, path), outputs.get(path)
    if is_dense_head(head) and (strides := getattr(head.prior_generator, 'strides', None)):
        return len(strides)
    first = output[0] if isinstance(output, (tuple, list)) and output else None
    return len(first) if isinstance(first, (tuple, list)) else 1


def _before_scores(head: Any, path: str, levels: int) -> list[str]:
    """A convolution before the scores, on each level; empty where the head has none that is known."""
    name = next((name for name in _CONVOLUTIONS if isinstance(getattr(head, name, None), nn.Module)), None)
    if name is None:
        return []
    part, where = getattr(head, name), f'{path}.{name}'
    layers: list[Any] = list(part) if isinstance(part, (nn.ModuleList, nn.Sequential)) else []
    if len(layers) == levels and isinstance(layers[0], (nn.ModuleList, nn.Sequential)):  # each level has its own
        # the first call of each, as RTMDet-Ins runs them once more for its boxes
        return [f'{where}.{level}.{min(_PUBLISHED, len(layers[level]) - 1)}@0' for level in range(levels)]
    if layers:
        where = f'{where}.{min(_PUBLISHED, len(layers) - 1)}'
    elif isinstance(part, (nn.ModuleList, nn.Sequential)):
        return []
    return [f'{where}@{level}' for level in range(levels)] if levels > 1 else [where]
