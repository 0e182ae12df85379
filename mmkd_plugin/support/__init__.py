"""What of mmdet's own detectors can be distilled, tried on each of them."""

from .choice import all_configs, config_folder, named
from .page import write_page
from .record import Record
from .walk import Limits, walk

__all__ = ['Limits', 'Record', 'all_configs', 'config_folder', 'named', 'walk', 'write_page']
