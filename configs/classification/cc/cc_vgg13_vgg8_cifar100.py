_base_ = '../../_base_/pairs/vgg13_vgg8_cifar100.py'

model = dict(losses=dict(loss_cc=dict(type='CCLoss', on='neck', form='embedded', embed_dim=128, loss_weight=0.02)))
