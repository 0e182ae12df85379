_base_ = 'digits/resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmkd_plugin::digits/resnet_teacher.py'),
    losses=dict(loss_dkd=dict(type='DKDLoss', on='head.fc', beta=8.0, temperature=4.0)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
