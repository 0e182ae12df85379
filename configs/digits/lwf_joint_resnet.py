# What LwF is compared with from above: the images of old and new digits together, from the same start.
_base_ = '../_base_/old_new_digits.py'

model = dict(head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')))
train_dataloader = dict(dataset=dict(classes=None))
