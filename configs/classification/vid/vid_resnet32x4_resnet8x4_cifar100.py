_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

model = dict(losses=dict(loss_vid=dict(type='VIDLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3)], loss_weight=1.0)))
