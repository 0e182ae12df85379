_base_ = '../../_base_/pairs/faster-rcnn_r50_r18_fpn_voc0712.py'

# DKD has the numbers of COCO, ReviewKD the weight 1. Untested here: none are published for VOC.
model = dict(
    losses=dict(
        loss_dkd=dict(type='DKDLoss', on='roi_head.bbox_head.fc_cls', alpha=1.0, beta=0.25, temperature=1.0),
        loss_reviewkd=dict(type='ReviewKDLoss', on=[f'neck[{i}]' for i in range(5)]),
    )
)
