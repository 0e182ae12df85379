# Between the teacher and the student in size: as deep as the student and twice as wide, on the student's images.
_base_ = 'resnet_student.py'

model = dict(backbone=dict(stem_channels=8, base_channels=8), head=dict(in_channels=64))
