_base_ = '../../_base_/pairs/resnet34_resnet18_8xb32_in1k.py'

model = dict(losses=dict(loss_dist=dict(type='DISTLoss', on='head.fc', temperature=1.0, loss_weight=2.0)))
