"""What each training sample is worth to the student, and which ones to go on with. numpy and torch only."""

from .aging import fall, level
from .condensation import Condensation, condense, random_scores, rank
from .keeping import keep_counts
from .mixing import mix
from .table import ForgettingTable, ValueTable
from .values import NEEDS, RANDOM, TABLES, VALUES, entropy, kl, loss, margin, needs_of, register_value, wrong

__all__ = [
    'NEEDS',
    'RANDOM',
    'TABLES',
    'VALUES',
    'Condensation',
    'ForgettingTable',
    'ValueTable',
    'condense',
    'entropy',
    'fall',
    'keep_counts',
    'kl',
    'level',
    'loss',
    'margin',
    'mix',
    'needs_of',
    'random_scores',
    'rank',
    'register_value',
    'wrong',
]
