_base_ = '../plain/faster-rcnn_r50_fpn_180k_coco.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),
    losses=dict(
        loss_reviewkd=dict(
            type='ReviewKDLoss', on=['neck[0]', 'neck[1]', 'neck[2]', 'neck[3]', 'neck[4]'], loss_weight=1.0
        )
    ),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
