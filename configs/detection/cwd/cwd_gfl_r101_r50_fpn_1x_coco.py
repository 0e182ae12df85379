_base_ = '../../_base_/pairs/gfl_r101_r50_fpn_1x_coco.py'

model = dict(
    losses=dict(loss_cwd=dict(type='CWDLoss', on=[f'neck[{i}]' for i in range(5)], temperature=1.0, loss_weight=10.0))
)
