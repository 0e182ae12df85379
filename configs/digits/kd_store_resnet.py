_base_ = '../_base_/pairs/teacher_student_digits.py'

# Ten views of each image, which the teacher sees once: the next run reads what it said (docs/store.md).
model = dict(
    teacher=dict(store=dict(path='work_dirs/knowledge/digits', views=10)),
    losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0)))  # fmt: skip
