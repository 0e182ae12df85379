_base_ = '../_base_/pairs/teacher_student_digit_scenes.py'

model = dict(losses=dict(loss_nst=dict(type='NSTLoss', on='backbone.layer3', loss_weight=50.0)))
