_base_ = '../../_base_/pairs/fcos_r101_r50-caffe_fpn_gn-head_ms-2x_coco.py'

model = dict(losses=dict(loss_crosskd=dict(type='CrossKDLoss', on='bbox_head')))
