# Faster R-CNN with FPN as detectron2 trains it: no batch norm learns, stem and first stage are frozen.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(backbone=dict(frozen_stages=1, norm_cfg=dict(requires_grad=False), norm_eval=True))
