_base_ = '../_base_/pairs/born_again_2_student_digits.py'

# The third generation, from the second.
model = dict(losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=1.0, loss_weight=1.0)))
