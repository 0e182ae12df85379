_base_ = '../_base_/pairs/auxiliary_student_digits.py'

# From the auxiliary network to the student, layer by layer: 100 * 0.7 ** epoch, and 1 at the last.
model = dict(losses=dict(
    loss_flow=dict(type='FlowLoss', on='neck', loss_weight=1.0),
    loss_flow_layers=dict(
        type='FlowLoss', on=[f'backbone.layer{i}' for i in (1, 2, 3)], loss_weight=100.0,
        schedule=dict(decay=40, final=0.7**40, curve='exponential'))))  # fmt: skip
