# ResNet-34 teaches ResNet-18 on ImageNet, batch 256.
# The teacher is mmpretrain's: its published weights are downloaded.
_base_ = '../../classification/plain/resnet18_8xb32_in1k.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmpretrain::resnet/resnet34_8xb32_in1k.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
