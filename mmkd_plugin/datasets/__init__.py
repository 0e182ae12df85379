"""Small embedded sample data; importing this package registers them with mmengine."""

from .digit_scenes import DigitScenes, digit_scenes_root
from .digits import Digits, load_digits

__all__ = ['DigitScenes', 'Digits', 'digit_scenes_root', 'load_digits']
