_base_ = 'resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmkd_plugin::digits/resnet_teacher.py'),
    losses=dict(
        loss_at=dict(type='ATLoss', loss_weight=1000.0,
                     on=['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'backbone.layer4']),
    ),
)  # fmt: skip
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
