_base_ = '../../_base_/pairs/faster-rcnn_r101_r50_fpn_180k_coco.py'

# Temperature and weight are DKD's, untested here: none are published for detection.
model = dict(losses=dict(loss_kd=dict(type='KDLoss', on='roi_head.bbox_head.fc_cls', temperature=1.0, loss_weight=1.0)))
