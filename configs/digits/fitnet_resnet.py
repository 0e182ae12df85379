_base_ = '../_base_/pairs/teacher_student_digits.py'

model = dict(losses=dict(loss_fitnet=dict(type='FitNetLoss', on='backbone.layer2', loss_weight=100.0)))
