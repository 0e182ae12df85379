"""Running a network so that its modules can be tapped: no losses, no post-processing."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from ..randomness import keep_random_state
from .detectors import DENSE_HEADS, BoxBranch, example_rois, is_detector, run_detector
from .taps import Tap, TapError, Taps


def run(
    model: Any,
    images: Tensor,
    paths: Collection[str] | None = None,
    rois: Mapping[BoxBranch, Tensor] | None = None,
) -> None:
    """The network on images, as far as somebody reads it.

    Args:
        model: Any network; mmengine's models run in ``tensor`` mode.
        images: (N, C, H, W).
        paths: Modules that are read, where the network can leave parts out; None is all.
        rois: What the box branches of a two-stage detector score.
    """
    if is_detector(model):
        run_detector(model, images, paths, rois)
    elif isinstance(model, BaseModel):
        model(images, mode='tensor')
    else:
        model(images)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every module's own mode is put back after it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def probe(
    model: nn.Module, images: Tensor, taps: Iterable[Tap], side: str, branches: Collection[BoxBranch] = ()
) -> tuple[Taps, set[Tap]]:
    """A full pass in evaluation mode that changes nothing.

    Returns:
        What the taps read, and those that must be cloned because a later module works in place.

    Raises:
        ValueError: If a tap names no module, or the model cannot run on such images.
    """
    taps = list(taps)
    paths = {tap.path for tap in taps}
    rois = dict.fromkeys(branches, example_rois(images))

    def tapped(clone: set[Tap]) -> Taps:
        recorded = Taps(model, taps, side, clone)
        try:
            with recorded.recording():
                run(model, images, paths, rois)
        except TapError:
            raise
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(
                f'the dry run of the {side} on images of shape {tuple(images.shape)} found no memory: {error}'
            ) from error
        except (RuntimeError, TypeError, AttributeError, ValueError, AssertionError, IndexError) as error:
            raise ValueError(
                f'the dry run of the {side} ({type(model).__name__}) on images of shape '
                f'{tuple(images.shape)} failed: {error}. If it takes another size, say '
                'input_shape=(channels, height, width) beside `losses`'
            ) from error
        return recorded

    with evaluating(model), torch.no_grad(), keep_random_state():
        recorded = tapped(set())
        if is_detector(model):
            _check_detector(model, recorded, tapped)
        clone = recorded.overwritten()
        return (tapped(clone) if clone else recorded), clone


def _check_detector(model: nn.Module, recorded: Taps, tapped: Callable[[set[Tap]], Taps]) -> None:
    """Refuse taps of a detector that would be read wrongly.

    Raises:
        ValueError: If a module lies where a detector is not run; if it runs once for each feature level and only
            one would be read; if a dense head puts out something else in training.
    """
    side = recorded.side
    for tap in recorded.taps:
        head = tap.path.split('.')[0]
        calls = recorded.counts.get(tap.path, 0)
        if recorded.peek(tap) is None:
            raise ValueError(
                f"'{tap}' of the {side} cannot be tapped: of a {type(model).__name__} only the backbone, the neck, "
                'dense heads and the box branch of a RoI head are run for distillation'
            )
        if head in DENSE_HEADS and calls > 1:
            raise ValueError(
                f"'{tap}' of the {side} runs {calls} times in one pass, once for each feature level, and only the last "
                f"would be read: tap the head and name output and level, as in '{head}[0][2]'"
            )
    dense = [tap for tap in recorded.taps if tap.path.split('.')[0] in DENSE_HEADS]
    heads = [model.get_submodule(name) for name in {tap.path.split('.')[0] for tap in dense}]
    for module in heads:
        module.training = True  # the head's own switch alone; norms inside stay in evaluation mode
    try:
        training = tapped(set()).values(dense) if dense else {}
    except (ValueError, RuntimeError) as error:
        raise ValueError(f'a dense head of the {side} puts out something else in training: {error}') from error
    finally:
        for module in heads:
            module.training = False
    for tap, value in training.items():
        expected = recorded.values([tap])[tap]
        if value.shape != expected.shape or not torch.allclose(value, expected, rtol=1e-3, atol=1e-5):
            raise ValueError(
                f"'{tap}' of the {side} has other values in training than in evaluation mode, so those of a student "
                'and a teacher cannot be compared: tap a module before it'
            )
