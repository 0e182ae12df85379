_base_ = [
    '../../_base_/classifier.py',
    '../../_base_/cifar100_bs64.py',
    '../../_base_/schedule_cifar_240e.py',
    '../../_base_/default_runtime.py',
]

model = dict(backbone=dict(type='CIFARVGG', depth=8), head=dict(num_classes=100, in_channels=512))
