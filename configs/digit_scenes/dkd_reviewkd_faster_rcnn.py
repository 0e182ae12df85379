_base_ = 'faster_rcnn_student.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmkd_plugin::digit_scenes/faster_rcnn_teacher.py'),
    losses=dict(
        loss_dkd=dict(type='DKDLoss', on='roi_head.bbox_head.fc_cls', beta=0.25, temperature=1.0),
        loss_reviewkd=dict(type='ReviewKDLoss', on=['neck[0]', 'neck[1]', 'neck[2]', 'neck[3]'], loss_weight=1.0),
    ),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
