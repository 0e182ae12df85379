"""Distillation losses: tensors in, scalar out. Nothing in this room imports the runner."""

from .base import DistillLoss
from .gather import SampleRelationLoss
from .logits.dkd import DKDLoss, dkd_loss, dkd_terms
from .logits.kd import KDLoss, kd_loss
from .maps.ab import ABLoss, ab_loss
from .maps.at import ATLoss, at_loss
from .maps.fitnet import FitNetLoss, fitnet_loss
from .maps.ft import FTLoss, ParaphraserLoss, ft_loss, paraphraser_loss
from .maps.nst import NSTLoss, nst_loss
from .maps.reviewkd import ReviewKDLoss, hcl_loss

__all__ = [
    'ABLoss',
    'ATLoss',
    'DKDLoss',
    'DistillLoss',
    'FTLoss',
    'FitNetLoss',
    'KDLoss',
    'NSTLoss',
    'ParaphraserLoss',
    'ReviewKDLoss',
    'SampleRelationLoss',
    'ab_loss',
    'at_loss',
    'dkd_loss',
    'dkd_terms',
    'fitnet_loss',
    'ft_loss',
    'hcl_loss',
    'kd_loss',
    'nst_loss',
    'paraphraser_loss',
]
