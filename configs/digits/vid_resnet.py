_base_ = '../_base_/pairs/teacher_student_digits.py'

model = dict(
    losses=dict(loss_vid=dict(type='VIDLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3, 4)], loss_weight=1.0))
)
