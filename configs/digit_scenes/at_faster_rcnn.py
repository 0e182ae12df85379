_base_ = '../_base_/pairs/teacher_student_digit_scenes.py'

model = dict(losses=dict(loss_at=dict(type='ATLoss', on=['backbone.layer2', 'backbone.layer3', 'backbone.layer4'])))
