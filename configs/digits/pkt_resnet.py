_base_ = '../_base_/pairs/teacher_student_digits.py'

model = dict(losses=dict(loss_pkt=dict(type='PKTLoss', on='neck', loss_weight=30000.0)))
