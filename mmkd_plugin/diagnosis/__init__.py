"""A distillation config, watched for a few steps: what looks wrong, and what to change."""

from .findings import FINDINGS, Finding, found, markdown
from .measured import Measured
from .report import plain, text
from .run import diagnose

__all__ = ['FINDINGS', 'Finding', 'Measured', 'diagnose', 'found', 'markdown', 'plain', 'text']
