_base_ = '../_base_/pairs/gfl_teacher_student_digit_scenes.py'

model = dict(losses=dict(loss_pkd=dict(type='PKDLoss', on=[f'neck[{i}]' for i in range(3)], loss_weight=6.0)))
