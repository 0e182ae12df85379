_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

# Both networks are read at the ends of their stages before the last ReLU.
model = dict(losses=dict(loss_ofd=dict(
    type='OFDLoss', loss_weight=1e-3, on=dict(
        student=[f'backbone.layer{i}.0.relu2:input' for i in (1, 2, 3)],
        teacher=[f'backbone.layer{i}.4.relu2:input' for i in (1, 2, 3)]))))  # fmt: skip
