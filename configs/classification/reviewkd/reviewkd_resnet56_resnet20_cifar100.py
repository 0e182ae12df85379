# The student is read at the ends of its stages, the teacher there before the last ReLU; both at the pooled vector.
_base_ = '../plain/resnet20_cifar100.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::classification/plain/resnet56_cifar100.py',
        checkpoint='work_dirs/resnet56_cifar100/epoch_240.pth',
    ),
    losses=dict(loss_reviewkd=dict(
        type='ReviewKDLoss', loss_weight=0.6, schedule=dict(warmup=20), on=dict(
            student=['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck'],
            teacher=['backbone.layer1.8.relu2:input', 'backbone.layer2.8.relu2:input',
                     'backbone.layer3.8.relu2:input', 'neck']))),
)  # fmt: skip
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
