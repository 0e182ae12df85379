# ResNet-101 teaches ResNet-50 on ImageNet, batch 512.
# The teacher is mmpretrain's: its published weights are downloaded.
_base_ = '../../classification/plain/resnet50_8xb64_in1k.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmpretrain::resnet/resnet101_8xb32_in1k.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
