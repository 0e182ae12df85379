_base_ = '../_base_/pairs/teacher_auxiliary_digits.py'

# From the teacher to the assistant.
model = dict(losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0)))
