# Three steps, 0 to 4, then 5 and 6, then 7 to 9: in each the teacher is the network of the step before.
_base_ = 'lwf_resnet.py'

data_preprocessor = dict(num_classes=7)
model = dict(head=dict(num_classes=7))
train_dataloader = dict(dataset=dict(classes=[5, 6]))
val_dataloader = dict(dataset=dict(classes=[0, 1, 2, 3, 4, 5, 6]))
test_dataloader = val_dataloader
