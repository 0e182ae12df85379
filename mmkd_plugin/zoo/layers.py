"""What a network costs, and where a student and a teacher can be compared."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..networks import Network, SizeError, evaluating, network_of
from ..randomness import keep_random_state

_ERRORS = (
    RuntimeError, TypeError, AttributeError, ValueError, AssertionError, IndexError, KeyError, ImportError,
    NotImplementedError,
)  # fmt: skip


class Place(NamedTuple):
    """A tap, and the shape of what it reads of one image."""

    tap: str
    shape: tuple[int, ...]


@dataclass
class Layers:
    """Of one network.

    Attributes:
        parameters: How many.
        macs: Multiply-adds of one image of this size; of detectors without box branches, and without heads
            that want more than features. None where it did not run.
        image: (C, H, W) that it was tried on.
        places: What can be tapped, by what has to be equal on both sides.
        problem: Why it did not run; empty where it did.
    """

    parameters: int
    macs: int | None = None
    image: tuple[int, ...] = ()
    places: dict[Any, Place] = field(default_factory=dict)
    problem: str = ''


def look_at(model: Any, image: tuple[int, ...] = (), side: int | None = None) -> Layers:
    """Build a network without memory for its weights, and run it on shapes alone where that is possible.

    Args:
        model: Its dictionary, as :func:`~mmkd_plugin.teachers.network_spec.model_of` gives it.
        image: (C, H, W); empty: the network's own.
        side: Of images without an ``image``, in pixels.

    Raises:
        Exception: Whatever the network's own code raises when it is built.
    """
    network = network_of(_build(model), 'network')
    layers = Layers(sum(p.numel() for p in network.model.parameters()))
    detects = hasattr(network.model, 'extract_feat') and not hasattr(network.model, 'head')
    channels, *_ = network.input_shape()
    usual = [(channels, size, size) for size in (side, 640 if detects else None) if size]
    shapes = [image] if image else [*usual, *network.input_shapes()]
    detects = detects or bool(network.branches())
    # detectors as far as the neck, where their heads want more than features; some operations know no shapes alone
    ways = [('meta', None), ('meta', ()), ('cpu', ())] if detects else [('meta', None), ('cpu', None)]
    for device, paths in ways:
        if device == 'cpu':
            network.model.to_empty(device='cpu')
        for shape in dict.fromkeys(shapes if device == 'meta' else shapes[:1]):
            try:
                with evaluating(network.model), torch.no_grad(), keep_random_state():
                    _run(network, shape, layers, device, paths)
                layers.problem = ''
                return layers
            except (SizeError, *_ERRORS) as error:
                layers.problem = layers.problem or f'{type(error).__name__}: {error}'.splitlines()[0][:120]
    return layers


def _build(cfg: Any) -> Any:
    with keep_random_state():
        try:
            with torch.device('meta'):
                return MODELS.build(cfg)
        except _ERRORS:  # some compute with numbers when they are built
            return MODELS.build(cfg).to('meta')


def in_common(student: Layers, teacher: Layers) -> list[tuple[Place, Place]]:
    """Places whose values can be compared: class scores, and maps of the same height and width."""
    return [(place, teacher.places[key]) for key, place in student.places.items() if key in teacher.places]


def _run(network: Network, shape: tuple[int, ...], layers: Layers, device: str, paths: Any) -> None:
    seen: dict[str, Any] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen[name] = output

        return hook

    tapped = [(name, m) for name, m in network.model.named_modules() if _may_be_read(name, m)]
    handles = [module.register_forward_hook(record(name)) for name, module in tapped]
    try:
        with FlopCounterMode(display=False) as counter:
            network.run(torch.zeros(1, *shape, device=device), paths)
    finally:
        for handle in handles:
            handle.remove()
    layers.macs, layers.image = counter.get_total_flops() // 2, shape
    layers.places = _places(network, seen)


def _may_be_read(name: str, module: nn.Module) -> bool:
    """Whether it is the neck, in the head, or a stage of the backbone: of several modules."""
    parts = name.split('.')
    stage = parts[0] == 'backbone' and (len(parts) == 2 or (len(parts) == 3 and parts[2].isdecimal()))
    stage = stage and 'embed' not in parts[1] and any(True for _ in module.children())
    return name == 'neck' or parts[0] == 'head' or stage


def _places(network: Network, seen: dict[str, Any]) -> dict[Any, Place]:
    """Class scores first, then the last module of each resolution of the backbone, then levels of the neck."""
    found: dict[Any, Place] = {}
    classes = network.num_classes() or getattr(getattr(network.model, 'backbone', None), 'num_classes', None)
    if scores := _scores(network, seen, classes):
        found['scores', classes] = scores
    stages: dict[Any, Place] = {}
    for depth in (3, 2):  # a stage rather than its last block
        for name, value in seen.items():
            if name.startswith('backbone.') and name.count('.') == depth - 1 and isinstance(value, Tensor):
                shape = tuple(value.shape[1:])
                if value.ndim == 4:
                    stages['backbone', shape[1:]] = Place(name, shape)
                elif value.ndim == 3:
                    stages['backbone', shape[:1]] = Place(name, shape)
    found |= {key: stages[key] for key in sorted(stages, key=lambda key: [-side for side in key[1]])}
    neck = seen.get('neck')
    levels = neck if isinstance(neck, (list, tuple)) else [neck]
    for number, value in enumerate(levels):
        if isinstance(value, Tensor):
            tap = f'neck[{number}]' if len(levels) > 1 else 'neck'
            found['neck', tuple(value.shape[2:])] = Place(tap, tuple(value.shape[1:]))
    return found


def _scores(network: Network, seen: dict[str, Any], classes: int | None) -> Place | None:
    tap = network.classifier()
    if classes is None:
        return None
    if tap is not None and tap.below('roi_head'):
        module = network.model.get_submodule(tap.path)
        return Place(str(tap), (module.out_features,)) if isinstance(module, nn.Linear) else None
    for name, value in reversed(seen.items()):
        if name.startswith(('head.', 'backbone.')) and isinstance(value, Tensor) and value.shape[1:] == (classes,):
            return Place(name, (classes,))
    return None
