"""Trained models that installed packages publish, and which of them could teach a student."""

from .candidates import Candidate, Search, Student, search
from .metafiles import Published, installed, published
from .report import find_teacher, plain, text

__all__ = [
    'Candidate',
    'Published',
    'Search',
    'Student',
    'find_teacher',
    'installed',
    'plain',
    'published',
    'search',
    'text',
]
