_base_ = 'faster_rcnn_student.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmkd_plugin::digit_scenes/faster_rcnn_teacher.py'),
    losses=dict(loss_at=dict(type='ATLoss', on=['backbone.layer2', 'backbone.layer3', 'backbone.layer4'])),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
