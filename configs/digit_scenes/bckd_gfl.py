_base_ = '../_base_/pairs/gfl_teacher_student_digit_scenes.py'

model = dict(losses=dict(loss_bckd=dict(type='BCKDLoss', on='bbox_head')))
