_base_ = '../../_base_/pairs/vgg13_vgg8_cifar100.py'

# 30 epochs of the paraphraser alone, then the schedule of the student from its start.
model = dict(task_loss=dict(schedule=dict(begin=30)), losses=dict(
    loss_paraphraser=dict(type='ParaphraserLoss', on=dict(teacher='backbone.layer4'), schedule=dict(end=30)),
    loss_ft=dict(type='FTLoss', on='backbone.layer4', factor='attention', norm=True, loss_weight=200.0,
                 schedule=dict(begin=30))))  # fmt: skip
train_cfg = dict(max_epochs=270)
custom_hooks = [*_base_.custom_hooks, dict(type='PhaseHook', optimizer=True)]
