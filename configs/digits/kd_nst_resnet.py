_base_ = '../_base_/pairs/teacher_student_digits.py'

model = dict(losses=dict(
    loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0),
    loss_nst=dict(type='NSTLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3, 4)], loss_weight=50.0)))  # fmt: skip
