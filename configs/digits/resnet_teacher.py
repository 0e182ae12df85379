# The teacher that ships with the package: ResNet-18 for small images, a quarter as wide, on all
# 4,000 training digits.
_base_ = 'resnet_student.py'

model = dict(backbone=dict(stem_channels=16, base_channels=16), head=dict(in_channels=128))
train_dataloader = dict(batch_size=64, dataset=dict(per_class=400))
optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = dict(eta_max=0.1, total_steps=30)
train_cfg = dict(max_epochs=30)
