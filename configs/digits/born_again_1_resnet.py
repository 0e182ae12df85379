_base_ = '../_base_/pairs/student_student_digits.py'

# The first generation: from a new start, beside the labels, from the plain student's prediction (T = 1).
model = dict(losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=1.0, loss_weight=1.0)))
