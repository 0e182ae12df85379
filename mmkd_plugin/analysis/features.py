"""A tapped layer of a network as a function of images, for what has to be asked of it many times."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..networks import Network, Tap, Taps, dry_run, evaluating
from ..randomness import keep_random_state
from ..teachers.folding import ConvNormPairs, fold, use_channels_last

_TOLERANCE = 1e-3  # of the spread over images: a wrong fold is off by far more, rounding by far less


class Tapped:
    """What a tap reads, images (N, C, H, W) to values (N, ...); a pass ends as soon as it has been read.

    The network has to be in evaluation mode, and its weights should want no gradient: see :func:`still`.

    Args:
        network: Its face.
        tap: Where.
        images: Some, to find out what has to be known of the tap.

    Raises:
        ValueError: If there is no such module, if it is not run on images alone, or if its rows are no images.
    """

    def __init__(self, network: Network, tap: Tap, images: Tensor) -> None:
        if network.rows(tap) is not None:
            raise ValueError(
                f"'{tap}' of the {network.side} has a row for each RoI, expected one for each image: tap the backbone "
                "or the neck, as in 'neck[1]'"
            )
        recorded, self._clone = dry_run(network, images[:1], [tap])
        self._calls = recorded.counts
        self.network, self.tap = network, tap
        #: Of one image, (...).
        self.shape = tuple(recorded.values()[tap].shape[1:])
        if len(recorded.values()[tap]) != 1:
            raise ValueError(
                f"'{tap}' of the {network.side} gives {(1, *self.shape)} for one image, expected a row for each image"
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Run as far as the tap."""
        recorded = Taps(self.network.model, [self.tap], self.network.side, self._clone, self._calls)
        with recorded.recording():
            self.network.run(images, {self.tap.path})
        return recorded.values()[self.tap]


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and weights without gradients inside the block; all is put back after it."""
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with evaluating(model):
        model.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, wants in wanted.items():
                parameter.requires_grad_(wants)


def made_faster(tapped: Tapped, images: Tensor) -> Tapped:
    """The same on a copy whose batch norms are folded and whose memory is channels_last, if it gives the same values.

    Args:
        tapped: Of a network in evaluation mode.
        images: (N, C, H, W), two or more, to compare on.

    Returns:
        The copy's, or the one that was given where values differ or the network cannot be folded.
    """
    original = tapped.network
    with torch.no_grad(), keep_random_state():
        expected = tapped(images).float()
        try:
            network = type(original)(copy.deepcopy(original.model), original.side)
            with ConvNormPairs(network.model) as pairs:
                network.run(images[:1], {tapped.tap.path})
            kept = network.model.get_submodule(tapped.tap.path)
            fold(network.model, [pair for pair in pairs.found() if kept not in pair])
            use_channels_last(network.model)
            network.model.requires_grad_(False)
            faster = Tapped(network, tapped.tap, images)
            got = faster(images).float()
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError):
            return tapped
    spread = (expected - expected.mean(0, keepdim=True)).abs().max().clamp_min(1e-6)
    return faster if bool((got - expected).abs().max() <= _TOLERANCE * spread) else tapped
