_base_ = '../../_base_/pairs/wrn-40-2_wrn-16-2_cifar100.py'

model = dict(losses=dict(loss_rkd=dict(type='RKDLoss', on='neck', distance_weight=25.0, angle_weight=50.0)))
