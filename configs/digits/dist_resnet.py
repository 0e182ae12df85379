_base_ = '../_base_/pairs/teacher_student_digits.py'

# the numbers of CIFAR-100, untuned
model = dict(losses=dict(loss_dist=dict(type='DISTLoss', on='head.fc', temperature=4.0, loss_weight=2.0)))
