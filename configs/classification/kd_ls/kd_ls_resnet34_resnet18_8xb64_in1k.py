_base_ = '../../_base_/pairs/resnet34_resnet18_8xb64_in1k.py'

model = dict(losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=2.0, standardize=True, loss_weight=9.0)))
