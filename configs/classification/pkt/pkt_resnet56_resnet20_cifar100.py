_base_ = '../../_base_/pairs/resnet56_resnet20_cifar100.py'

model = dict(losses=dict(loss_pkt=dict(type='PKTLoss', on='neck', loss_weight=30000.0)))
