"""A pass that changes nothing: to learn shapes, and what has to be known of taps before training."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..randomness import keep_random_state
from .network import Network
from .recording import Taps
from .regions import BoxBranch, example_rois
from .taps import Tap, TapError


class SizeError(ValueError):
    """A network that did not run on images of a size; it may on others."""


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


def dry_run(
    network: Network,
    images: Tensor,
    taps: Iterable[Tap],
    branches: Collection[BoxBranch] = (),
) -> tuple[Taps, set[Tap]]:
    """A full pass in evaluation mode that changes nothing.

    Args:
        network: What is run.
        images: (N, C, H, W).
        taps: What is read.
        branches: Box branches that this needs.

    Returns:
        What the taps read, and those that must be cloned because a later module works in place.

    Raises:
        SizeError: If the model cannot run on such images.
        ValueError: If a tap names no module, or would be read wrongly.
    """
    taps, model, side = list(taps), network.model, network.side
    paths = {tap.path for tap in taps}
    rois = dict.fromkeys(branches, example_rois(images))

    def tapped(clone: set[Tap]) -> Taps:
        recorded = Taps(model, taps, side, clone)
        try:
            with recorded.recording():
                network.run(images, paths, rois)
        except TapError:
            raise
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(
                f'the dry run of the {side} on images of shape {tuple(images.shape)} found no memory: {error}'
            ) from error
        except (RuntimeError, TypeError, AttributeError, ValueError, AssertionError, IndexError) as error:
            raise SizeError(
                f'the dry run of the {side} ({type(model).__name__}) on images of shape '
                f'{tuple(images.shape)} failed: {error}. If it takes another size, say '
                'input_shape=(channels, height, width) beside `losses`'
            ) from error
        return recorded

    with evaluating(model), torch.no_grad(), keep_random_state():
        recorded = tapped(set())
        network.check_read(recorded, lambda: tapped(set()))
        if missing := [str(tap) for tap in taps if recorded.peek(tap) is None]:
            raise ValueError(
                f'{", ".join(missing)} of the {side} ({type(model).__name__}) did not run in a pass on images alone '
                "(mmengine's mode='tensor'): tap modules that compute predictions, or those within them; "
                'tools/list_modules.py lists what runs'
            )
        clone = recorded.overwritten()
        return (tapped(clone) if clone else recorded), clone
