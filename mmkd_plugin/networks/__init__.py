"""Networks: running one as far as somebody reads it, and what the values mean."""

from .detectors import KINDS, network_of
from .network import Network
from .passes import evaluating, probe
from .recording import Taps
from .regions import BoxBranch, Region, example_rois
from .taps import Tap, TapError, find_module

__all__ = [
    'KINDS',
    'BoxBranch',
    'Network',
    'Region',
    'Tap',
    'TapError',
    'Taps',
    'evaluating',
    'example_rois',
    'find_module',
    'network_of',
    'probe',
]
