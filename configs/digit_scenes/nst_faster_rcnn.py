_base_ = 'faster_rcnn_student.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmkd_plugin::digit_scenes/faster_rcnn_teacher.py'),
    losses=dict(loss_nst=dict(type='NSTLoss', on='backbone.layer3', loss_weight=50.0)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
