_base_ = '../../_base_/pairs/resnet34_resnet18_8xb32_in1k.py'

# Both networks are read at the ends of their stages before the last ReLU.
model = dict(losses=dict(loss_ofd=dict(
    type='OFDLoss', loss_weight=1e-4, on=dict(
        student=[f'backbone.layer{i}.1.relu:input' for i in (1, 2, 3, 4)],
        teacher=['backbone.layer1.2.relu:input', 'backbone.layer2.3.relu:input', 'backbone.layer3.5.relu:input',
                 'backbone.layer4.2.relu:input']))))  # fmt: skip
