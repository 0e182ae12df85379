_base_ = '../_base_/pairs/views_student_digits.py'

# Both graphs; the numbers are ours.
model = dict(losses=dict(
    loss_logits_graph=dict(type='LogitsGraphLoss', on='head.fc', temperature=4.0, loss_weight=16.0),
    loss_representation_graph=dict(type='RepresentationGraphLoss', on='neck', loss_weight=1.0)))  # fmt: skip
