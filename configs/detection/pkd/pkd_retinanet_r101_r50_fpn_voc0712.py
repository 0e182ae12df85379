_base_ = '../../_base_/pairs/retinanet_r101_r50_fpn_voc0712_dense.py'

# Weights are those of COCO, untested here: none are published for VOC.
model = dict(losses=dict(loss_pkd=dict(type='PKDLoss', on=[f'neck[{i}]' for i in range(4)], loss_weight=10.0)))
