_base_ = '../../_base_/pairs/retinanet_r101_r50_fpn_voc0712_dense.py'

# Weights are those of COCO, untested here: none are published for VOC.
model = dict(losses=dict(loss_crosskd=dict(type='CrossKDLoss', on='bbox_head')))
