_base_ = '../plain/mobilenet_v1_8xb64_in1k.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmpretrain::resnet/resnet50_8xb32_in1k.py'),
    losses=dict(loss_dkd=dict(type='DKDLoss', on='head.fc', alpha=1.0, beta=2.0, temperature=1.0)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
