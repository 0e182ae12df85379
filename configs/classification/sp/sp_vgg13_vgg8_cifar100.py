_base_ = '../../_base_/pairs/vgg13_vgg8_cifar100.py'

model = dict(losses=dict(loss_sp=dict(type='SPLoss', on='backbone.layer4', loss_weight=3000.0)))
