_base_ = '../_base_/pairs/teacher_student_digits.py'

# FSP as published, in two stages: first the flows alone train the student's backbone, then the labels train all of it.
model = dict(
    losses=dict(loss_fsp=dict(
        type='FSPLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3, 4)], connector='conv_bn', loss_weight=1.0,
        schedule=dict(end=5))),
    task_loss=dict(schedule=dict(begin=5)))  # fmt: skip
