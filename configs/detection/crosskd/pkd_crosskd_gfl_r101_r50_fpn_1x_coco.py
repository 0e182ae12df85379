_base_ = '../../_base_/pairs/gfl_r101_r50_fpn_1x_coco.py'

model = dict(
    losses=dict(
        loss_pkd=dict(type='PKDLoss', on=[f'neck[{i}]' for i in range(4)], loss_weight=6.0),
        loss_crosskd=dict(type='CrossKDLoss', on='bbox_head', boxes='distributions'),
    )
)
