"""What each training sample is worth to the student, and which ones to go on with. numpy and torch only."""

from .condensation import Condensation, condense, random_scores, rank
from .keeping import keep_counts
from .mixing import mix
from .table import ValueTable
from .values import RANDOM, VALUES, entropy, register_value

__all__ = [
    'RANDOM',
    'VALUES',
    'Condensation',
    'ValueTable',
    'condense',
    'entropy',
    'keep_counts',
    'mix',
    'random_scores',
    'rank',
    'register_value',
]
