_base_ = 'digits/resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmkd_plugin::digits/resnet_teacher.py'),
    losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
