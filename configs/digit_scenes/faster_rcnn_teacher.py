# The teacher that ships with the package, on all 600 training scenes.
_base_ = [
    '../_base_/small_faster_rcnn.py',
    '../_base_/digit_scenes.py',
    '../_base_/schedule_digit_scenes.py',
    '../_base_/default_runtime_det.py',
]

param_scheduler = dict(total_steps=18)
train_cfg = dict(max_epochs=18, val_interval=6)
