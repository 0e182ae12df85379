"""Experiments: several configs trained, over several seeds or one after the other, in one table and one picture."""

from .chain import Link, forge, link_table
from .entries import Entry, parameters_of, read_entries
from .fork import Fork
from .picture import draw_gains
from .pool import Pool, interruptible
from .runs import Result, Run, plan_runs
from .screen import Screen
from .table import Comparison, Row, verdict

__all__ = [
    'Comparison',
    'Entry',
    'Fork',
    'Link',
    'Pool',
    'Result',
    'Row',
    'Run',
    'Screen',
    'draw_gains',
    'forge',
    'interruptible',
    'link_table',
    'parameters_of',
    'plan_runs',
    'read_entries',
    'verdict',
]
