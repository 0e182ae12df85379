_base_ = '../plain/resnet20_cifar100.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::classification/plain/resnet56_cifar100.py',
        checkpoint='work_dirs/resnet56_cifar100/epoch_240.pth',
    ),
    losses=dict(loss_fitnet=dict(type='FitNetLoss', on='backbone.layer2', loss_weight=100.0)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
