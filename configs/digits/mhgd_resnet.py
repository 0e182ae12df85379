_base_ = '../_base_/pairs/teacher_student_digits.py'

# In two stages: first the heads learn on the teacher alone, and the student stays as it is; then the labels and the
# attention graphs train the student, by the authors' rule bounded by the labels, and the heads stay as they are.
optim_wrapper = dict(type='BoundedOptimWrapper', begin=10)
model = dict(losses=dict(
    loss_heads=dict(type='MHGDHeadsLoss', on=dict(teacher=[f'backbone.layer{i}' for i in (1, 2, 3, 4)]), schedule=dict(end=10)),
    loss_mhgd=dict(type='MHGDLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3, 4)], connector='conv_bn', loss_weight=16.0, schedule=dict(begin=10))),
    task_loss=dict(schedule=dict(begin=10)))  # fmt: skip
