# Train and validation images of VOC 2007 and 2012, three times an epoch; tested on VOC 2007. As mmdet has it.
_base_ = 'mmdet::_base_/datasets/voc0712.py'

train_dataloader = dict(persistent_workers=False)  # EpochSeedHook seeds the workers of each epoch
