"""Small embedded sample data, registered with mmengine by importing this package; data sets with an index."""

from .digit_scenes import DigitScenes, digit_scenes_root
from .digits import Digits, load_digits
from .indexed import INDEX, VIEW, IndexedDataset, rewrapped_loader

__all__ = [
    'INDEX',
    'VIEW',
    'DigitScenes',
    'Digits',
    'IndexedDataset',
    'digit_scenes_root',
    'load_digits',
    'rewrapped_loader',
]
