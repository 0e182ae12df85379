_base_ = '../../_base_/pairs/vgg13_vgg8_cifar100.py'

# 30 epochs of the boundaries alone, then the schedule of the student from its start.
model = dict(task_loss=dict(schedule=dict(begin=30)), losses=dict(loss_ab=dict(
    type='ABLoss', skip_equal=True, loss_weight=0.003, schedule=dict(end=30), on=dict(
        student=[*(f'backbone.layer{i}.3:input' for i in (1, 2, 3)), 'backbone.layer4.2:input'],
        teacher=[*(f'backbone.layer{i}.6:input' for i in (1, 2, 3)), 'backbone.layer4.5:input']))))  # fmt: skip
train_cfg = dict(max_epochs=270)
custom_hooks = [*_base_.custom_hooks, dict(type='PhaseHook', optimizer=True)]
