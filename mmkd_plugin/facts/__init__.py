"""Facts: what losses and sources may know besides tapped values, of a batch and before training."""

from .batch import Batch, Progress, Sizes
from .before_training import Facts, KnownNetworks, TapShape, TrainingData
from .needs import NEEDS, register_need

__all__ = ['NEEDS', 'Batch', 'Facts', 'KnownNetworks', 'Progress', 'Sizes', 'TapShape', 'TrainingData', 'register_need']
