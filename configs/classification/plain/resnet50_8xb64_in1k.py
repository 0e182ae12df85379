# Batch 512 at learning rate 0.1, as the authors of NST train. (mdistiller's recipes have 0.2 at that batch.)
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs64.py',
    '../../_base_/schedule_imagenet_100e.py',
    '../../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=0.1))
