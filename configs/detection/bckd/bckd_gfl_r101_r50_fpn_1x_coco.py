_base_ = '../../_base_/pairs/gfl_r101_r50_fpn_1x_coco.py'

model = dict(losses=dict(loss_bckd=dict(type='BCKDLoss', on='bbox_head')))
