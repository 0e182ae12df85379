_base_ = '../_base_/pairs/assistant_tiny_digits.py'

# From the assistant to the tiny student.
model = dict(losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0)))
