_base_ = '../../_base_/pairs/faster-rcnn_r101_r18_fpn_180k_coco.py'

model = dict(
    losses=dict(loss_dkd=dict(type='DKDLoss', on='roi_head.bbox_head.fc_cls', alpha=1.0, beta=0.25, temperature=1.0))
)
