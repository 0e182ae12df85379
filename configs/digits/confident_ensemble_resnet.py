_base_ = '../_base_/pairs/views_student_digits.py'

# The mean of the three teachers' predictions, each weighted by the probability that it gives an image's class.
model = dict(losses=dict(
    loss_ensemble=dict(type='ConfidentEnsembleKDLoss', on='head.fc', temperature=4.0, loss_weight=1.0)))  # fmt: skip
