_base_ = '_base_/pairs/teacher_student_digits.py'

model = dict(
    losses=dict(
        loss_nst=dict(
            type='NSTLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3, 4)], kernel='polynomial', loss_weight=50.0
        )
    )
)
