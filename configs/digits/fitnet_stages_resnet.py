_base_ = '../_base_/pairs/teacher_student_digits.py'

# FitNets as published, in two stages: first the hint alone trains the student up to its guided layer and the
# regressor, and leaves all behind it as it is; then the labels and the soft targets train the whole student.
model = dict(
    losses=dict(
        loss_hint=dict(type='FitNetLoss', on='backbone.layer2', loss_weight=100.0, schedule=dict(end=10)),
        loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0, schedule=dict(begin=10))),
    task_loss=dict(schedule=dict(begin=10)))  # fmt: skip
