_base_ = '_base_/pairs/teacher_student_digits.py'

model = dict(losses=dict(loss_dkd=dict(type='DKDLoss', on='head.fc', beta=8.0, temperature=4.0)))
