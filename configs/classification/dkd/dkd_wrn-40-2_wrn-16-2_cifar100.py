_base_ = '../../_base_/pairs/wrn-40-2_wrn-16-2_cifar100.py'

model = dict(
    losses=dict(
        loss_dkd=dict(type='DKDLoss', on='head.fc', alpha=1.0, beta=6.0, temperature=4.0, schedule=dict(warmup=20))
    )
)
