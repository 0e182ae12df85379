# LwF's upper bound: the images of all digits at once, from the same start.
_base_ = '../_base_/pairs/old_new_digits.py'

train_dataloader = dict(dataset=dict(classes=None))
model = dict(head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss', loss_weight=1.0)))
