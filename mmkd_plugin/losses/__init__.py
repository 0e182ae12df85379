"""Distillation losses: tensors in, scalar out. Nothing in this room imports the runner."""

from .base import DistillLoss
from .gather import SampleRelationLoss
from .logits.dkd import DKDLoss, dkd_loss, dkd_terms
from .logits.kd import KDLoss, kd_loss
from .maps.at import ATLoss, at_loss
from .maps.fitnet import FitNetLoss, fitnet_loss
from .maps.nst import NSTLoss, nst_loss
from .maps.reviewkd import ReviewKDLoss, hcl_loss
from .relations.crd import CRDLoss, crd_loss, crd_queue_loss

__all__ = [
    'ATLoss',
    'CRDLoss',
    'DKDLoss',
    'DistillLoss',
    'FitNetLoss',
    'KDLoss',
    'NSTLoss',
    'ReviewKDLoss',
    'SampleRelationLoss',
    'at_loss',
    'crd_loss',
    'crd_queue_loss',
    'dkd_loss',
    'dkd_terms',
    'fitnet_loss',
    'hcl_loss',
    'kd_loss',
    'nst_loss',
]
