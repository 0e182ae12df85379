# Most of the digits with a square of 12 pixels cut out.
_base_ = 'view_teacher_rotated.py'

train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='RandomCrop', crop_size=28, padding=2),
    dict(type='Cutout', shape=12, pad_val=0, prob=0.75),
    dict(type='PackInputs')]))  # fmt: skip
