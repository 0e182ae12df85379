_base_ = '../_base_/pairs/teacher_student_digit_scenes.py'

model = dict(
    losses=dict(loss_cwd=dict(type='CWDLoss', on=[f'neck[{i}]' for i in range(4)], temperature=1.0, loss_weight=10.0))
)
