# The one-stage teacher that ships with the package, on all 600 training scenes, trained longer and on several scales.
_base_ = [
    '../_base_/small_gfl.py',
    '../_base_/digit_scenes.py',
    '../_base_/schedule_digit_scenes.py',
    '../_base_/default_runtime_det.py',
]

load, annotate, pack = _base_.train_pipeline
resize = dict(type='RandomResize', scale=[(112, 112), (224, 224)], keep_ratio=True)
train_dataloader = dict(dataset=dict(pipeline=[load, annotate, resize, pack]))
param_scheduler = dict(total_steps=40)
train_cfg = dict(max_epochs=40)
