_base_ = '../../_base_/pairs/vgg13_vgg8_cifar100.py'

model = dict(losses=dict(loss_crd=dict(type='CRDLoss', on='neck', num_negatives=16384, loss_weight=0.8)))
