_base_ = '../_base_/pairs/teacher_student_digits.py'

# In two stages: first the paraphraser learns on the teacher alone, and the student stays as it is; then the labels and
# the factors train the student and its translator, and the paraphraser stays as it is.
model = dict(
    losses=dict(
        loss_paraphraser=dict(type='ParaphraserLoss', on=dict(teacher='backbone.layer4'), schedule=dict(end=5)),
        loss_ft=dict(type='FTLoss', on='backbone.layer4', loss_weight=500.0, schedule=dict(begin=5))),
    task_loss=dict(schedule=dict(begin=5)))  # fmt: skip
