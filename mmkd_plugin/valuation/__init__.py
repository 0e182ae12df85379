"""What each training sample is worth to the student, and which ones to go on with. numpy and torch only."""

from .condensation import Condensation, condense, rank
from .keeping import keep_counts
from .mixing import mix
from .table import ValueTable
from .values import VALUES, entropy, register_value

__all__ = [
    'VALUES',
    'Condensation',
    'ValueTable',
    'condense',
    'entropy',
    'keep_counts',
    'mix',
    'rank',
    'register_value',
]
