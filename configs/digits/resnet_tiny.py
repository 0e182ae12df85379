# Half as wide as the usual student: far from the teacher, on the same images.
_base_ = 'resnet_student.py'

model = dict(backbone=dict(stem_channels=2, base_channels=2), head=dict(in_channels=16))
