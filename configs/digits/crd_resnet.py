_base_ = '../_base_/pairs/teacher_student_digits.py'

# Of the 200 images 180 are of other classes.
model = dict(losses=dict(loss_crd=dict(type='CRDLoss', on='neck', num_negatives=128, loss_weight=0.8)))
