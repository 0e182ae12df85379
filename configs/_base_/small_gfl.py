# mmdet's GFL with FPN made small: a ResNet-18 a quarter as wide, trained from scratch, and three levels of 32 channels.
# For 160x160 pictures.
model = dict(
    type='GFL',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet', depth=18, stem_channels=16, base_channels=16, norm_cfg=dict(type='BN'), norm_eval=False
    ),
    neck=dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=32, start_level=1, num_outs=3),
    bbox_head=dict(
        type='GFLHead',
        num_classes=10,
        in_channels=32,
        feat_channels=32,
        norm_cfg=dict(type='GN', num_groups=8),
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[8, 16, 32]
        ),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(
        nms_pre=200, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20
    ),
)
