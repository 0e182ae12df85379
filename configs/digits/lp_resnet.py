_base_ = '../_base_/pairs/teacher_student_digits.py'

model = dict(losses=dict(loss_lp=dict(type='LPLoss', on='neck', k=5, sigma2=2.0, loss_weight=1.5)))
