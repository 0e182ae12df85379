"""Networks: running one as far as somebody reads it, and what the values mean."""

from .dense_heads import DenseGrid, check_grids
from .dry_run import SizeError, dry_run, evaluating
from .kinds import KINDS, network_of
from .network import Network
from .recording import Taps
from .regions import BoxBranch, Region, example_rois
from .taps import Tap, TapError, find_module
from .weights import flat, weights_at

__all__ = [
    'KINDS',
    'BoxBranch',
    'DenseGrid',
    'Network',
    'Region',
    'SizeError',
    'Tap',
    'TapError',
    'Taps',
    'check_grids',
    'dry_run',
    'evaluating',
    'example_rois',
    'find_module',
    'flat',
    'network_of',
    'weights_at',
]
