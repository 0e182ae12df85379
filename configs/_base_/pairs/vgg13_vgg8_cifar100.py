# vgg13 teaches vgg8 on CIFAR-100.
# Train the teacher first: its checkpoint is where that run leaves it.
_base_ = '../../classification/plain/vgg8_cifar100.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::classification/plain/vgg13_cifar100.py',
        checkpoint='work_dirs/vgg13_cifar100/epoch_240.pth',
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
