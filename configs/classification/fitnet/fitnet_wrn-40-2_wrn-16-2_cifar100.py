_base_ = '../../_base_/pairs/wrn-40-2_wrn-16-2_cifar100.py'

model = dict(losses=dict(loss_fitnet=dict(type='FitNetLoss', on='backbone.layer2', loss_weight=100.0)))
