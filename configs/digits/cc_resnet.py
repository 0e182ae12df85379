_base_ = '../_base_/pairs/teacher_student_digits.py'

model = dict(losses=dict(loss_cc=dict(type='CCLoss', on='neck', gamma=0.4, order=2, loss_weight=0.003)))
