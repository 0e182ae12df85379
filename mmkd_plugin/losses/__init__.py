"""Distillation losses: tensors in, scalar out. Nothing in this room imports the runner."""

from .base import DistillLoss
from .dkd import DKDLoss, dkd_loss, dkd_terms
from .kd import KDLoss, kd_loss

__all__ = ['DKDLoss', 'DistillLoss', 'KDLoss', 'dkd_loss', 'dkd_terms', 'kd_loss']
