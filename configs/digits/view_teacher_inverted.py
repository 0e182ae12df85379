# Some of the digits black on white.
_base_ = 'view_teacher_rotated.py'

train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='RandomCrop', crop_size=28, padding=2),
    dict(type='Invert', prob=0.3),
    dict(type='PackInputs')]))  # fmt: skip
