_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

model = dict(losses=dict(loss_cc=dict(type='CCLoss', on='neck', form='embedded', embed_dim=128, loss_weight=0.02)))
