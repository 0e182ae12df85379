_base_ = '../_base_/pairs/teacher_student_digits.py'

# In two stages: first the heads learn on the teacher alone, and the student stays as it is; then the labels and the
# graphs train the student, the graphs bounded by the labels as by the authors, and the heads stay as they are.
optim_wrapper = dict(type='BoundedOptimWrapper', begin=5)
model = dict(task_loss=dict(schedule=dict(begin=5)), losses=dict(
    loss_heads=dict(type='MHGDHeadsLoss', schedule=dict(end=5), on=dict(
        teacher=[f'backbone.layer{i}' for i in (1, 2, 3, 4)])),
    loss_mhgd=dict(type='MHGDLoss', schedule=dict(begin=5), on=[f'backbone.layer{i}' for i in (1, 2, 3, 4)],
                   connector='conv_bn', loss_weight=16.0)))  # fmt: skip
