_base_ = '../../_base_/pairs/resnet50_mobilenet_v1_8xb64_in1k.py'

model = dict(losses=dict(loss_dkd=dict(type='DKDLoss', on='head.fc', alpha=1.0, beta=2.0, temperature=1.0)))
