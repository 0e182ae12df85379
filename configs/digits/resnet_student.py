# A small student with room to gain: a sixteenth of the teacher's parameters, 200 training images
# (20 of each digit).
_base_ = [
    '../_base_/classifier.py',
    '../_base_/digits.py',
    '../_base_/schedule_digits.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(type='ResNet_CIFAR', depth=18, in_channels=1, stem_channels=4, base_channels=4),
    head=dict(num_classes=10, in_channels=32, topk=(1,)),
)
train_dataloader = dict(batch_size=16, dataset=dict(per_class=20))
