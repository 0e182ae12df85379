"""Experiments: several configs, trained over several seeds, in one table and one picture."""

from .entries import Entry, parameters_of, read_entries
from .picture import draw_gains
from .pool import Pool
from .runs import Result, Run, plan_runs
from .screen import Screen
from .table import Comparison, Row, verdict

__all__ = [
    'Comparison',
    'Entry',
    'Pool',
    'Result',
    'Row',
    'Run',
    'Screen',
    'draw_gains',
    'parameters_of',
    'plan_runs',
    'read_entries',
    'verdict',
]
