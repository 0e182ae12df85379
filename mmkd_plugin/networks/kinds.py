"""Which kind of network a model is."""

from torch import nn

from .detectors import Detector
from .network import Network

#: Kinds of networks, the particular before the general.
KINDS: list[type[Network]] = [Detector, Network]


def network_of(model: nn.Module, side: str = 'student') -> Network:
    """The face of a model.

    Args:
        model: Any network.
        side: What it is called in errors.
    """
    return next(kind for kind in KINDS if kind.is_kind_of(model))(model, side)
