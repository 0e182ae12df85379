_base_ = '../../_base_/pairs/wrn-40-2_wrn-16-2_cifar100.py'

# Both networks are read at the ends of their stages before the last ReLU.
model = dict(losses=dict(loss_ofd=dict(
    type='OFDLoss', loss_weight=1e-3, on=[f'backbone.layer{i}.norm' for i in (1, 2, 3)])))  # fmt: skip
