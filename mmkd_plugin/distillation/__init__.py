"""Distillation: the student that learns, and what a training step adds."""

from .step import Distillation
from .student import Distilled, distill
from .term import Term

__all__ = ['Distillation', 'Distilled', 'Term', 'distill']
