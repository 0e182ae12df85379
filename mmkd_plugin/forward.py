"""Running a network so that its modules can be tapped: no losses, no post-processing."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from .detectors import DENSE_HEADS, BoxBranch, example_rois, is_detector, run_detector
from .randomness import keep_random_state
from .taps import Tap, Taps


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
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ValueError(
                f'the dry run of the {side} ({type(model).__name__}) on images of shape '
                f'{tuple(images.shape)} failed: {error}. If it takes another size, say '
                'input_shape=(channels, height, width) beside `losses`'
            ) from error
        return recorded

    with evaluating(model), torch.no_grad(), keep_random_state():
        recorded = tapped(set())
        _check_levels(model, recorded)
        clone = recorded.overwritten()
        return (tapped(clone) if clone else recorded), clone


def _check_levels(model: nn.Module, recorded: Taps) -> None:
    """Refuse to read one feature level of a dense head where all were meant.

    Raises:
        ValueError: If a tapped module runs once for each level.
    """
    for tap in recorded.taps if is_detector(model) else ():
        head = tap.path.split('.')[0]
        if head in DENSE_HEADS and recorded.counts.get(tap.path, 0) > 1:
            raise ValueError(
                f"'{tap}' of the {recorded.side} runs {recorded.counts[tap.path]} times in one pass, once for each "
                f'feature level, and only the last would be read: tap the head and name output and level, as in '
                f"'{head}[0][2]'"
            )
