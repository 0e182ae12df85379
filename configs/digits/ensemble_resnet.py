_base_ = '../_base_/pairs/views_student_digits.py'

# The mean of the three teachers' predictions, each as good as the others; temperature and weight as KD's on digits.
model = dict(losses=dict(loss_ensemble=dict(type='EnsembleKDLoss', on='head.fc', temperature=4.0, loss_weight=1.0)))
