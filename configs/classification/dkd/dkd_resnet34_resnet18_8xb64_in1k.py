_base_ = '../../_base_/pairs/resnet34_resnet18_8xb64_in1k.py'

model = dict(losses=dict(loss_dkd=dict(type='DKDLoss', on='head.fc', alpha=1.0, beta=0.5, temperature=1.0)))
