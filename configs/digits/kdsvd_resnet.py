_base_ = '../_base_/pairs/teacher_student_digits.py'

# The authors' rule: for each parameter, distillation never exceeds the task.
optim_wrapper = dict(type='BoundedOptimWrapper')
model = dict(losses=dict(loss_kdsvd=dict(
    type='KDSVDLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3, 4)], connector='conv_bn', loss_weight=1.0,
)))  # fmt: skip
