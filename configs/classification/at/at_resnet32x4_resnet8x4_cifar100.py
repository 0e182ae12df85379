_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

model = dict(losses=dict(loss_at=dict(type='ATLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3)], loss_weight=1000.0)))
