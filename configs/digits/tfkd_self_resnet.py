_base_ = '../_base_/pairs/student_student_digits.py'

# Tf-KD_self: ordinary KD, with the numbers of ours for digits.
model = dict(losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0)))
