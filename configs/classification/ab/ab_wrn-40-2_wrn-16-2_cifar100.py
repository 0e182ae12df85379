_base_ = '../../_base_/pairs/wrn-40-2_wrn-16-2_cifar100.py'

# 30 epochs of the boundaries alone, then the schedule of the student from its start.
model = dict(task_loss=dict(schedule=dict(begin=30)), losses=dict(loss_ab=dict(
    type='ABLoss', skip_equal=True, loss_weight=0.003, schedule=dict(end=30),
    on=[f'backbone.layer{i}.norm' for i in (1, 2, 3)])))  # fmt: skip
train_cfg = dict(max_epochs=270)
custom_hooks = [*_base_.custom_hooks, dict(type='PhaseHook', optimizer=True)]
