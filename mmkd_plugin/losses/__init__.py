"""Distillation losses: tensors in, scalar out. Nothing in this room imports the runner."""

from .at import ATLoss, at_loss
from .base import DistillLoss
from .dkd import DKDLoss, dkd_loss, dkd_terms
from .fitnet import FitNetLoss, fitnet_loss
from .kd import KDLoss, kd_loss
from .nst import NSTLoss, nst_loss
from .reviewkd import ReviewKDLoss, hcl_loss

__all__ = [
    'ATLoss',
    'DKDLoss',
    'DistillLoss',
    'FitNetLoss',
    'KDLoss',
    'NSTLoss',
    'ReviewKDLoss',
    'at_loss',
    'dkd_loss',
    'dkd_terms',
    'fitnet_loss',
    'hcl_loss',
    'kd_loss',
    'nst_loss',
]
