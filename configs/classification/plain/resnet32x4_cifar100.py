_base_ = [
    '../../_base_/classifier.py',
    '../../_base_/cifar100_bs64.py',
    '../../_base_/schedule_cifar_240e.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(type='CIFARResNet', depth=32, channels=(32, 64, 128, 256)),
    # None: the linear layer keeps torch's initialisation, as in the benchmark.
    head=dict(num_classes=100, in_channels=256, init_cfg=None),
)
