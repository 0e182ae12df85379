_base_ = '../../_base_/pairs/resnet56_resnet20_cifar100.py'

# 30 epochs of the flows alone, then the schedule of the student from its start.
model = dict(task_loss=dict(schedule=dict(begin=30)), losses=dict(loss_fsp=dict(
    type='FSPLoss', on=['backbone.stem', *(f'backbone.layer{i}' for i in (1, 2, 3))], pool='average',
    loss_weight=1.0, schedule=dict(end=30))))  # fmt: skip
train_cfg = dict(max_epochs=270)
custom_hooks = [*_base_.custom_hooks, dict(type='PhaseHook', optimizer=True)]
