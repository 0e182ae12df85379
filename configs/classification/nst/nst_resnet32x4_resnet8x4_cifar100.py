_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

model = dict(
    losses=dict(
        loss_nst=dict(
            type='NSTLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3)], kernel='polynomial', loss_weight=50.0
        )
    )
)
