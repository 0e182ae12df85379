_base_ = '../_base_/pairs/teacher_student_digits.py'

# KD goes with it, as published.
model = dict(losses=dict(
    loss_semckd=dict(type='SemCKDLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3, 4)], loss_weight=400.0,
                     batch_size={{_base_.train_dataloader.batch_size}}),
    loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0)))  # fmt: skip
