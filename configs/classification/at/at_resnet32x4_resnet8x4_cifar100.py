_base_ = '../plain/resnet8x4_cifar100.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::classification/plain/resnet32x4_cifar100.py',
        checkpoint='work_dirs/resnet32x4_cifar100/epoch_240.pth',
    ),
    losses=dict(
        loss_at=dict(type='ATLoss', on=['backbone.layer1', 'backbone.layer2', 'backbone.layer3'], loss_weight=1000.0)
    ),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
