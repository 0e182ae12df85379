# A small one-stage student with room to gain: a backbone half as wide as the teacher's, 300 of the 600 training scenes.
_base_ = [
    '../_base_/small_gfl.py',
    '../_base_/digit_scenes.py',
    '../_base_/schedule_digit_scenes.py',
    '../_base_/default_runtime_det.py',
]

model = dict(backbone=dict(stem_channels=8, base_channels=8), neck=dict(in_channels=[8, 16, 32, 64]))
train_dataloader = dict(dataset=dict(images=300))
