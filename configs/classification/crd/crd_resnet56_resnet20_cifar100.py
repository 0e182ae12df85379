_base_ = '../../_base_/pairs/resnet56_resnet20_cifar100.py'

model = dict(losses=dict(loss_crd=dict(type='CRDLoss', on='neck', num_negatives=16384, loss_weight=0.8)))
