_base_ = '../../_base_/pairs/gfl_r101_r50_fpn_1x_coco.py'

model = dict(
    losses=dict(
        loss_ld=dict(type='LDLoss', on=[f'bbox_head[{o}][{i}]' for o in (0, 1) for i in range(5)], loss_weight=0.25)
    )
)
