_base_ = '../_base_/pairs/teacher_student_digits.py'

# In two stages: first the boundaries alone train the student's backbone and the connectors, then the labels train the
# student.
model = dict(
    losses=dict(loss_ab=dict(
        type='ABLoss', on=[f'backbone.layer{i}.1.relu:input' for i in (1, 2, 3, 4)],
        loss_weight=0.003, schedule=dict(end=5))),
    task_loss=dict(schedule=dict(begin=5)))  # fmt: skip
