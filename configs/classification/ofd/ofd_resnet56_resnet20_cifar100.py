_base_ = '../../_base_/pairs/resnet56_resnet20_cifar100.py'

# Both networks are read at the ends of their stages before the last ReLU.
model = dict(losses=dict(loss_ofd=dict(
    type='OFDLoss', loss_weight=1e-3, on=dict(
        student=[f'backbone.layer{i}.2.relu2:input' for i in (1, 2, 3)],
        teacher=[f'backbone.layer{i}.8.relu2:input' for i in (1, 2, 3)]))))  # fmt: skip
