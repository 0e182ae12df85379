_base_ = '../_base_/pairs/gfl_teacher_student_digit_scenes.py'

model = dict(losses=dict(loss_crosskd=dict(type='CrossKDLoss', on='bbox_head', boxes='distributions')))
