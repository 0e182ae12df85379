_base_ = '../../_base_/pairs/resnet56_resnet20_cifar100.py'

model = dict(losses=dict(loss_sp=dict(type='SPLoss', on='backbone.layer3', loss_weight=3000.0)))
