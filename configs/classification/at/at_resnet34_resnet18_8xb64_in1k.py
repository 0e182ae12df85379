_base_ = '../plain/resnet18_8xb64_in1k.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmpretrain::resnet/resnet34_8xb32_in1k.py'),
    losses=dict(
        loss_at=dict(type='ATLoss', loss_weight=1000.0,
                     on=['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'backbone.layer4']),
    ),
)  # fmt: skip
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
