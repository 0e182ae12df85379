_base_ = '../plain/wrn-16-2_cifar100.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::classification/plain/wrn-40-2_cifar100.py',
        checkpoint='work_dirs/wrn-40-2_cifar100/epoch_240.pth',
    ),
    losses=dict(
        loss_dkd=dict(type='DKDLoss', on='head.fc', alpha=1.0, beta=6.0, temperature=4.0, schedule=dict(warmup=20))
    ),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
