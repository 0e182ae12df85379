_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    'mmpretrain::_base_/datasets/imagenet_bs64.py',
    '../../_base_/schedule_imagenet_100e.py',
    '../../_base_/default_runtime.py',
]
