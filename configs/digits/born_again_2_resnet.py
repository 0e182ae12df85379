_base_ = '../_base_/pairs/born_again_1_student_digits.py'

# The second generation, from the first.
model = dict(losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=1.0, loss_weight=1.0)))
