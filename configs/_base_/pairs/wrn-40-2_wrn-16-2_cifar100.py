# wrn-40-2 teaches wrn-16-2 on CIFAR-100.
# Train the teacher first: its checkpoint is where that run leaves it.
_base_ = '../../classification/plain/wrn-16-2_cifar100.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::classification/plain/wrn-40-2_cifar100.py',
        checkpoint='work_dirs/wrn-40-2_cifar100/epoch_240.pth',
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
