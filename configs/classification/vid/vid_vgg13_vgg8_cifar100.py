_base_ = '../../_base_/pairs/vgg13_vgg8_cifar100.py'

model = dict(
    losses=dict(loss_vid=dict(type='VIDLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3, 4)], loss_weight=1.0))
)
