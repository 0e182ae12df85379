# One of three small teachers for configs/digits/graph_resnet.py, each of which sees the digits in another view: here
# rotated by up to 45 degrees. A view leaves some images nearly or wholly as the student sees them. A teacher has ten
# times the student's images.
_base_ = 'resnet_auxiliary.py'

train_dataloader = dict(batch_size=64, dataset=dict(per_class=200, pipeline=[
    dict(type='RandomCrop', crop_size=28, padding=2),
    dict(type='Rotate', magnitude_level=10, magnitude_range=(0, 45), magnitude_std='inf', prob=1.0, pad_val=0),
    dict(type='PackInputs')]))  # fmt: skip
optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = dict(eta_max=0.1, total_steps=15)
train_cfg = dict(max_epochs=15)
