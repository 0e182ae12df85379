# Batch 256, as mdistiller trains ReviewKD.
_base_ = 'resnet18_8xb64_in1k.py'

train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=0.1))
auto_scale_lr = dict(base_batch_size=256)
