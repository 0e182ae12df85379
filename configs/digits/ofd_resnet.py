_base_ = '../_base_/pairs/teacher_student_digits.py'

# Both networks are read at the ends of their stages before the last ReLU.
model = dict(losses=dict(loss_ofd=dict(
    type='OFDLoss', loss_weight=1e-3, on=[f'backbone.layer{i}.1.relu:input' for i in (1, 2, 3, 4)])))  # fmt: skip
