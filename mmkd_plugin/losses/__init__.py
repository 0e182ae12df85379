"""Distillation losses: tensors in, scalar out. Nothing in this room imports the runner."""

from .base import DistillLoss
from .detection.bckd import BCKDLoss
from .detection.boxes import giou_loss
from .detection.crosskd import CrossKDLoss
from .detection.cwd import CWDLoss, cwd_loss
from .detection.dense_kd import DenseKDLoss, QFLKDLoss, qfl_kd_loss, sigmoid_kd_loss
from .detection.fgd import FGDLoss, fgd_attention, fgd_loss
from .detection.ld import LDLoss, ld_loss, valuable_region
from .detection.masks import box_masks
from .detection.mgd import MGDLoss, mgd_loss
from .detection.pkd import PKDLoss, pkd_loss
from .gather import SampleRelationLoss
from .logits.dist import DISTLoss, dist_loss
from .logits.dkd import DKDLoss, dkd_loss, dkd_terms
from .logits.ensemble import ConfidentEnsembleKDLoss, EnsembleKDLoss, confidence_weights, ensemble_kd_loss
from .logits.graph import LogitsGraphLoss, logits_graph_loss
from .logits.ilod import ILODLoss, ilod_loss
from .logits.kd import KDLoss, kd_loss
from .logits.lwf import LwFLoss, lwf_loss
from .logits.standardize import standardize_logits
from .maps.ab import ABLoss, ab_loss
from .maps.at import ATLoss, at_loss
from .maps.fitnet import FitNetLoss, fitnet_loss
from .maps.ft import FTLoss, ParaphraserLoss, ft_loss, paraphraser_loss
from .maps.nst import NSTLoss, nst_loss
from .maps.ofd import OFDLoss, ofd_loss, ofd_margin
from .maps.reviewkd import ReviewKDLoss, hcl_loss
from .maps.semckd import SemCKDLoss, semckd_attention, semckd_loss
from .maps.vid import VIDLoss, vid_loss
from .relations.cc import CCLoss, cc_embedded_loss, cc_loss
from .relations.crd import CRDLoss, crd_loss, crd_queue_loss
from .relations.flow import FlowLoss, flow_loss
from .relations.fsp import FSPLoss, fsp_loss
from .relations.graph import RepresentationGraphLoss, compact_bilinear, representation_graph_loss
from .relations.irg import IRGLoss, IRGTransformLoss, irg_loss, irg_transform_loss
from .relations.kdsvd import KDSVDLoss, kdsvd_loss, singular_vectors
from .relations.lp import LPLoss, lp_loss
from .relations.mhgd import MHGDHeadsLoss, MHGDLoss, mhgd_heads_loss, mhgd_loss
from .relations.pkt import PKTLoss, pkt_loss
from .relations.rkd import RKDLoss, rkd_angle_loss, rkd_distance_loss, rkd_loss
from .relations.sp import SPLoss, sp_loss

__all__ = [
    'ABLoss',
    'ATLoss',
    'BCKDLoss',
    'CCLoss',
    'CRDLoss',
    'CWDLoss',
    'ConfidentEnsembleKDLoss',
    'CrossKDLoss',
    'DISTLoss',
    'DKDLoss',
    'DenseKDLoss',
    'DistillLoss',
    'EnsembleKDLoss',
    'FGDLoss',
    'FSPLoss',
    'FTLoss',
    'FitNetLoss',
    'FlowLoss',
    'ILODLoss',
    'IRGLoss',
    'IRGTransformLoss',
    'KDLoss',
    'KDSVDLoss',
    'LDLoss',
    'LPLoss',
    'LogitsGraphLoss',
    'LwFLoss',
    'MGDLoss',
    'MHGDHeadsLoss',
    'MHGDLoss',
    'NSTLoss',
    'OFDLoss',
    'PKDLoss',
    'PKTLoss',
    'ParaphraserLoss',
    'QFLKDLoss',
    'RKDLoss',
    'RepresentationGraphLoss',
    'ReviewKDLoss',
    'SPLoss',
    'SampleRelationLoss',
    'SemCKDLoss',
    'VIDLoss',
    'ab_loss',
    'at_loss',
    'box_masks',
    'cc_embedded_loss',
    'cc_loss',
    'compact_bilinear',
    'confidence_weights',
    'crd_loss',
    'crd_queue_loss',
    'cwd_loss',
    'dist_loss',
    'dkd_loss',
    'dkd_terms',
    'ensemble_kd_loss',
    'fgd_attention',
    'fgd_loss',
    'fitnet_loss',
    'flow_loss',
    'fsp_loss',
    'ft_loss',
    'giou_loss',
    'hcl_loss',
    'ilod_loss',
    'irg_loss',
    'irg_transform_loss',
    'kd_loss',
    'kdsvd_loss',
    'ld_loss',
    'logits_graph_loss',
    'lp_loss',
    'lwf_loss',
    'mgd_loss',
    'mhgd_heads_loss',
    'mhgd_loss',
    'nst_loss',
    'ofd_loss',
    'ofd_margin',
    'paraphraser_loss',
    'pkd_loss',
    'pkt_loss',
    'qfl_kd_loss',
    'representation_graph_loss',
    'rkd_angle_loss',
    'rkd_distance_loss',
    'rkd_loss',
    'semckd_attention',
    'semckd_loss',
    'sigmoid_kd_loss',
    'singular_vectors',
    'sp_loss',
    'standardize_logits',
    'valuable_region',
    'vid_loss',
]
