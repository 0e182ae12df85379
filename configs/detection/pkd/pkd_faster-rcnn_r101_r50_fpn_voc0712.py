_base_ = '../../_base_/pairs/faster-rcnn_r101_r50_fpn_voc0712.py'

# Weights are those of COCO, untested here: none are published for VOC.
model = dict(losses=dict(loss_pkd=dict(type='PKDLoss', on=[f'neck[{i}]' for i in range(4)], loss_weight=6.0)))
