_base_ = '../_base_/pairs/teacher_student_digit_scenes.py'

model = dict(
    losses=dict(
        loss_fitnet=dict(type='FitNetLoss', on=[f'neck[{i}]' for i in range(4)], regressor='conv', loss_weight=1.0)
    )
)
