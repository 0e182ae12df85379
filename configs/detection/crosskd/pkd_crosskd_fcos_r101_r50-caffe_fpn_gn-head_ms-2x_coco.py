_base_ = '../../_base_/pairs/fcos_r101_r50-caffe_fpn_gn-head_ms-2x_coco.py'

model = dict(
    losses=dict(
        loss_pkd=dict(type='PKDLoss', on=[f'neck[{i}]' for i in range(4)], loss_weight=6.0),
        loss_crosskd=dict(type='CrossKDLoss', on='bbox_head'),
    )
)
