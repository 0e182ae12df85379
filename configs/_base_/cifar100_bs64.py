# CIFAR-100 as the CRD benchmark and mdistiller read it. The data are downloaded where they are missing.
_base_ = 'mmpretrain::_base_/datasets/cifar100_bs16.py'

data_preprocessor = dict(
    mean=[0.5071 * 255, 0.4867 * 255, 0.4408 * 255], std=[0.2675 * 255, 0.2565 * 255, 0.2761 * 255]
)

train_dataloader = dict(batch_size=64)
val_dataloader = dict(batch_size=256)
test_dataloader = val_dataloader
