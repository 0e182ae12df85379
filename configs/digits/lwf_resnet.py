_base_ = '../_base_/old_new_digits.py'

model = dict(losses=dict(loss_lwf=dict(type='LwFLoss', on='head.fc', temperature=2.0, loss_weight=1.0)))
