_base_ = '../../_base_/pairs/faster-rcnn_r50_r18_fpn_voc0712.py'

# Temperature and weights are those of COCO, untested here: none are published for VOC.
model = dict(
    losses=dict(loss_dkd=dict(type='DKDLoss', on='roi_head.bbox_head.fc_cls', alpha=1.0, beta=0.25, temperature=1.0))
)
