_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

model = dict(losses=dict(loss_pkt=dict(type='PKTLoss', on='neck', loss_weight=30000.0)))
