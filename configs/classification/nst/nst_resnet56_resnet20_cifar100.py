_base_ = '../plain/resnet20_cifar100.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::classification/plain/resnet56_cifar100.py',
        checkpoint='work_dirs/resnet56_cifar100/epoch_240.pth',
    ),
    losses=dict(
        loss_nst=dict(type='NSTLoss', kernel='polynomial', loss_weight=50.0,
                      on=['backbone.layer1', 'backbone.layer2', 'backbone.layer3']),
    ),
)  # fmt: skip
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
