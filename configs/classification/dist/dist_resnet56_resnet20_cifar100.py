_base_ = '../../_base_/pairs/resnet56_resnet20_cifar100.py'

model = dict(losses=dict(loss_dist=dict(type='DISTLoss', on='head.fc', temperature=4.0, loss_weight=2.0)))
