"""Distillation losses: tensors in, scalar out. Nothing in this room imports the runner."""

from .base import DistillLoss
from .gather import SampleRelationLoss
from .logits.dkd import DKDLoss, dkd_loss, dkd_terms
from .logits.graph import LogitsGraphLoss, logits_graph_loss
from .logits.kd import KDLoss, kd_loss
from .maps.at import ATLoss, at_loss
from .maps.fitnet import FitNetLoss, fitnet_loss
from .maps.nst import NSTLoss, nst_loss
from .maps.ofd import OFDLoss, ofd_loss, ofd_margin
from .maps.reviewkd import ReviewKDLoss, hcl_loss
from .maps.semckd import SemCKDLoss, semckd_attention, semckd_loss
from .maps.vid import VIDLoss, vid_loss
from .relations.flow import FlowLoss, flow_loss
from .relations.graph import RepresentationGraphLoss, compact_bilinear, representation_graph_loss

__all__ = [
    'ATLoss',
    'DKDLoss',
    'DistillLoss',
    'FitNetLoss',
    'FlowLoss',
    'KDLoss',
    'LogitsGraphLoss',
    'NSTLoss',
    'OFDLoss',
    'RepresentationGraphLoss',
    'ReviewKDLoss',
    'SampleRelationLoss',
    'SemCKDLoss',
    'VIDLoss',
    'at_loss',
    'compact_bilinear',
    'dkd_loss',
    'dkd_terms',
    'fitnet_loss',
    'flow_loss',
    'hcl_loss',
    'kd_loss',
    'logits_graph_loss',
    'nst_loss',
    'ofd_loss',
    'ofd_margin',
    'representation_graph_loss',
    'semckd_attention',
    'semckd_loss',
    'vid_loss',
]
