_base_ = 'digit_scenes/faster_rcnn_student.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmkd_plugin::digit_scenes/faster_rcnn_teacher.py'),
    losses=dict(loss_dkd=dict(type='DKDLoss', on='roi_head.bbox_head.fc_cls', beta=0.25, temperature=1.0)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
