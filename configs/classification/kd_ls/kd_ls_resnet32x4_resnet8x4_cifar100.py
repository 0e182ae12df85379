_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

model = dict(
    task_loss=dict(loss_weight=0.1),
    losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=2.0, standardize=True, loss_weight=9.0)),
)
