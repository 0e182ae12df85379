# The first step of lifelong learning: the digits 0 to 4.
_base_ = 'resnet_student.py'

data_preprocessor = dict(num_classes=5)
model = dict(head=dict(num_classes=5))
train_dataloader = dict(batch_size=32, dataset=dict(per_class=100, classes=[0, 1, 2, 3, 4]))
val_dataloader = dict(dataset=dict(classes=[0, 1, 2, 3, 4]))
test_dataloader = val_dataloader
param_scheduler = dict(total_steps=20)
train_cfg = dict(max_epochs=20)
