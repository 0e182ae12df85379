_base_ = [
    '../../_base_/classifier.py',
    'mmpretrain::_base_/datasets/imagenet_bs64.py',
    '../../_base_/schedule_imagenet_100e.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(type='MobileNetV1'),
    # None: the linear layer keeps torch's initialisation, as in mdistiller.
    head=dict(num_classes=1000, in_channels=1024, init_cfg=None),
)
