_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

model = dict(losses=dict(loss_dkd=dict(
    type='DKDLoss', on='head.fc', alpha=1.0, beta=8.0, temperature=2.0, standardize=True, loss_weight=9.0,
    schedule=dict(warmup=20))))  # fmt: skip
