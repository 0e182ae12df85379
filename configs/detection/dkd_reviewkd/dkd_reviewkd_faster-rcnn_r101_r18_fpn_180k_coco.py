_base_ = '../plain/faster-rcnn_r18_fpn_180k_coco.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),
    losses=dict(
        loss_dkd=dict(type='DKDLoss', on='roi_head.bbox_head.fc_cls', alpha=1.0, beta=0.25, temperature=1.0),
        loss_reviewkd=dict(
            type='ReviewKDLoss', on=['neck[0]', 'neck[1]', 'neck[2]', 'neck[3]', 'neck[4]'], loss_weight=1.2
        ),
    ),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
