"""Looking at what a student learned."""

from .comparison import REDUCTIONS
from .pictures import Gallery

__all__ = ['REDUCTIONS', 'Gallery']
