"""Distillation losses: tensors in, scalar out. Nothing in this room imports the runner."""

from .base import DistillLoss
from .gather import SampleRelationLoss
from .logits.dkd import DKDLoss, dkd_loss, dkd_terms
from .logits.kd import KDLoss, kd_loss
from .maps.at import ATLoss, at_loss
from .maps.fitnet import FitNetLoss, fitnet_loss
from .maps.nst import NSTLoss, nst_loss
from .maps.ofd import OFDLoss, ofd_loss, ofd_margin
from .maps.reviewkd import ReviewKDLoss, hcl_loss
from .maps.semckd import SemCKDLoss, semckd_attention, semckd_loss
from .maps.vid import VIDLoss, vid_loss
from .relations.irg import IRGLoss, IRGTransformLoss, irg_loss, irg_transform_loss
from .relations.rkd import RKDLoss, rkd_angle_loss, rkd_distance_loss, rkd_loss

__all__ = [
    'ATLoss',
    'DKDLoss',
    'DistillLoss',
    'FitNetLoss',
    'IRGLoss',
    'IRGTransformLoss',
    'KDLoss',
    'NSTLoss',
    'OFDLoss',
    'RKDLoss',
    'ReviewKDLoss',
    'SampleRelationLoss',
    'SemCKDLoss',
    'VIDLoss',
    'at_loss',
    'dkd_loss',
    'dkd_terms',
    'fitnet_loss',
    'hcl_loss',
    'irg_loss',
    'irg_transform_loss',
    'kd_loss',
    'nst_loss',
    'ofd_loss',
    'ofd_margin',
    'rkd_angle_loss',
    'rkd_distance_loss',
    'rkd_loss',
    'semckd_attention',
    'semckd_loss',
    'vid_loss',
]
