_base_ = '../../_base_/pairs/vgg13_vgg8_cifar100.py'

model = dict(losses=dict(loss_fitnet=dict(type='FitNetLoss', on='backbone.layer2', loss_weight=100.0)))
