# resnet32x4 teaches resnet8x4 on CIFAR-100.
# Train the teacher first: its checkpoint is where that run leaves it.
_base_ = '../../classification/plain/resnet8x4_cifar100.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::classification/plain/resnet32x4_cifar100.py',
        checkpoint='work_dirs/resnet32x4_cifar100/epoch_240.pth',
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
