# 240 epochs at batch 64, as the CRD benchmark and mdistiller train.
_base_ = 'mmpretrain::_base_/schedules/cifar10_bs128.py'

optim_wrapper = dict(optimizer=dict(lr=0.05, weight_decay=5e-4))
param_scheduler = dict(milestones=[150, 180, 210])
train_cfg = dict(max_epochs=240)
auto_scale_lr = dict(base_batch_size=64)
