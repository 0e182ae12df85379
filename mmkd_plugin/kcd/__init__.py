"""KCD, knowledge condensation distillation: training on the part of the data that is still worth it."""

from .hook import KCDHook
from .valuation import VALUES, register_value

__all__ = ['VALUES', 'KCDHook', 'register_value']
