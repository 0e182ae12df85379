# VOC 2007 alone: the first of the two datasets.
_base_ = 'voc0712.py'

_base_.train_dataloader.dataset.dataset.datasets = _base_.train_dataloader.dataset.dataset.datasets[:1]
