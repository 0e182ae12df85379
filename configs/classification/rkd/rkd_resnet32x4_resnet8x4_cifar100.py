_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

model = dict(losses=dict(loss_rkd=dict(type='RKDLoss', on='neck', distance_weight=25.0, angle_weight=50.0)))
