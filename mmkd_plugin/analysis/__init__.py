"""Looking at what a student learned."""

from .comparison import REDUCTIONS
from .concepts import Concepts, find_concepts
from .discarding import Discarding, Setting, discard, entropy
from .features import Tapped, made_faster, still
from .learning import Changes, Speed, changes, effective, learning_speed, path_length, stability
from .pictures import Gallery

__all__ = [
    'REDUCTIONS',
    'Changes',
    'Concepts',
    'Discarding',
    'Gallery',
    'Setting',
    'Speed',
    'Tapped',
    'changes',
    'discard',
    'effective',
    'entropy',
    'find_concepts',
    'learning_speed',
    'made_faster',
    'path_length',
    'stability',
    'still',
]
