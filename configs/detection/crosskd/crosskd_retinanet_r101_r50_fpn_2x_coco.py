_base_ = '../../_base_/pairs/retinanet_r101_r50_fpn_2x_coco.py'

model = dict(losses=dict(loss_crosskd=dict(type='CrossKDLoss', on='bbox_head')))
