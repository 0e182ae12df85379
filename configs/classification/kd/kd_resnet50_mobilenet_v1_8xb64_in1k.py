_base_ = '../plain/mobilenet_v1_8xb64_in1k.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmpretrain::resnet/resnet50_8xb32_in1k.py'),
    task_loss=dict(loss_weight=0.5),
    losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=1.0, loss_weight=0.5)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
