# FitNets as published, in two stages: first the hint alone trains the student up to its guided layer and the
# regressor, and leaves all behind it as it is; then the labels and the soft targets train the whole student.
_base_ = 'resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmkd_plugin::digits/resnet_teacher.py'),
    task_loss=dict(schedule=dict(begin=10)),
    losses=dict(
        loss_hint=dict(type='FitNetLoss', on='backbone.layer2', loss_weight=100.0, schedule=dict(end=10)),
        loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, schedule=dict(begin=10)),
    ),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
