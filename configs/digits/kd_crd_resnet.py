_base_ = '../_base_/pairs/teacher_student_digits.py'

# As the authors combine the two; of the 200 images 180 are of other classes.
model = dict(losses=dict(
    loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0),
    loss_crd=dict(type='CRDLoss', on='neck', num_negatives=128, loss_weight=0.8)))  # fmt: skip
