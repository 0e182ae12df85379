_base_ = '../_base_/pairs/teacher_student_digits.py'

model = dict(losses=dict(loss_fsp=dict(
    type='FSPLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3, 4)], connector='conv_bn', loss_weight=1.0,
)))  # fmt: skip
