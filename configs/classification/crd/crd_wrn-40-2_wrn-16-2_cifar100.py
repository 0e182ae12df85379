_base_ = '../../_base_/pairs/wrn-40-2_wrn-16-2_cifar100.py'

model = dict(losses=dict(loss_crd=dict(type='CRDLoss', on='neck', num_negatives=16384, loss_weight=0.8)))
