_base_ = '../_base_/pairs/teacher_tiny_digits.py'

# Directly, without an assistant.
model = dict(losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0)))
