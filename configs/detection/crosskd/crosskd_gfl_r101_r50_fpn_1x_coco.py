_base_ = '../../_base_/pairs/gfl_r101_r50_fpn_1x_coco.py'

model = dict(losses=dict(loss_crosskd=dict(type='CrossKDLoss', on='bbox_head', boxes='distributions')))
