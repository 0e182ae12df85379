_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

# 30 epochs of the paraphraser alone, whose learning rate is 0.01, then the schedule of the student from its start.
model = dict(task_loss=dict(schedule=dict(begin=30)), losses=dict(
    loss_paraphraser=dict(type='ParaphraserLoss', on=dict(teacher='backbone.layer3'), schedule=dict(end=30)),
    loss_ft=dict(type='FTLoss', on='backbone.layer3', factor='attention', norm=True, loss_weight=200.0,
                 schedule=dict(begin=30))))  # fmt: skip
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'distill.losses.loss_paraphraser': dict(lr_mult=0.2)}))
train_cfg = dict(max_epochs=270)
custom_hooks = [*_base_.custom_hooks, dict(type='PhaseHook', optimizer=True)]
