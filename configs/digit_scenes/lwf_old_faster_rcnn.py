# The first step of lifelong learning: boxes of the digits 0 to 4.
_base_ = 'faster_rcnn_student.py'

model = dict(roi_head=dict(bbox_head=dict(num_classes=5)))
train_dataloader = dict(dataset=dict(classes=[0, 1, 2, 3, 4]))
val_dataloader = dict(dataset=dict(classes=[0, 1, 2, 3, 4]))
test_dataloader = val_dataloader
