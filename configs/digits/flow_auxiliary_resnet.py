_base_ = '../_base_/pairs/teacher_auxiliary_digits.py'

# From the teacher to the auxiliary network: the last layer alone.
model = dict(losses=dict(loss_flow=dict(type='FlowLoss', on='neck', loss_weight=1.0)))
