_base_ = 'faster_rcnn_student.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmkd_plugin::digit_scenes/faster_rcnn_teacher.py'),
    losses=dict(loss_kd=dict(type='KDLoss', on='roi_head.bbox_head.fc_cls', temperature=1.0)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
