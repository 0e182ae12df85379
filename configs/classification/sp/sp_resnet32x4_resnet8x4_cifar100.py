_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

model = dict(losses=dict(loss_sp=dict(type='SPLoss', on='backbone.layer3', loss_weight=3000.0)))
