# The first step of lifelong learning: the digits 0 to 4.
_base_ = 'resnet_student.py'

model = dict(head=dict(num_classes=5))
data_preprocessor = dict(num_classes=5)
train_dataloader = dict(dataset=dict(classes=[0, 1, 2, 3, 4]))
val_dataloader = dict(dataset=dict(classes=[0, 1, 2, 3, 4]))
test_dataloader = val_dataloader
