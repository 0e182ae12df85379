# FPN's maps have no ReLU, so the regressor has none. The weight is ours, as large as ReviewKD's on these maps, and
# untested: none is published for detection.
_base_ = '../plain/faster-rcnn_r18_fpn_180k_coco.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),
    losses=dict(
        loss_fitnet=dict(
            type='FitNetLoss',
            on=['neck[0]', 'neck[1]', 'neck[2]', 'neck[3]', 'neck[4]'],
            regressor='conv',
            loss_weight=1.0,
        )
    ),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
