_base_ = '../../_base_/pairs/faster-rcnn_r101_r18_fpn_180k_coco.py'

model = dict(losses=dict(loss_reviewkd=dict(type='ReviewKDLoss', on=[f'neck[{i}]' for i in range(5)], loss_weight=1.2)))
