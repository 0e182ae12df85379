# Nothing is frozen but the batch norms. FPN reads the last maps of strides 4, 8, 16 and 32; the layer behind
# them, made for classification, stays unused.
_base_ = 'faster-rcnn_r50_fpn_180k_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2'),
    ),
    neck=dict(in_channels=[24, 32, 96, 320]),
)
find_unused_parameters = True
