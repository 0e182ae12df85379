_base_ = '../../_base_/pairs/wrn-40-2_wrn-16-2_cifar100.py'

model = dict(losses=dict(loss_sp=dict(type='SPLoss', on='backbone.layer3', loss_weight=3000.0)))
