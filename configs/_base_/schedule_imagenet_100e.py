# 100 epochs at batch 512, as mdistiller trains KD and DKD.
_base_ = 'mmpretrain::_base_/schedules/imagenet_bs256.py'

optim_wrapper = dict(optimizer=dict(lr=0.2))
auto_scale_lr = dict(base_batch_size=512)
