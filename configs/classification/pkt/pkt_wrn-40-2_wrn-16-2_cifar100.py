_base_ = '../../_base_/pairs/wrn-40-2_wrn-16-2_cifar100.py'

model = dict(losses=dict(loss_pkt=dict(type='PKTLoss', on='neck', loss_weight=30000.0)))
