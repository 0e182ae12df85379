_base_ = '../plain/vgg8_cifar100.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::classification/plain/vgg13_cifar100.py',
        checkpoint='work_dirs/vgg13_cifar100/epoch_240.pth',
    ),
    task_loss=dict(loss_weight=0.1),
    losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=0.9)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
