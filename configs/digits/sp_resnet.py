_base_ = '../_base_/pairs/teacher_student_digits.py'

model = dict(losses=dict(loss_sp=dict(type='SPLoss', on='backbone.layer4', loss_weight=3000.0)))
