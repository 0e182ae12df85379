_base_ = '../_base_/pairs/route_student_digits.py'

# Each anchor teaches a quarter of the epochs.
model = dict(losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0)))
