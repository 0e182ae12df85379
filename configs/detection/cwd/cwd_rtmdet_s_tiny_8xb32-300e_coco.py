_base_ = '../../_base_/pairs/rtmdet_s_tiny_8xb32-300e_coco.py'

# Before the norms of the neck's last convolutions; it ends where the strong augmentation does.
model = dict(losses=dict(loss_cwd=dict(
    type='CWDLoss', on=[f'neck.out_convs.{i}.conv' for i in range(3)], normalize=True, loss_weight=1.0,
    schedule=dict(end=280),
)))  # fmt: skip
