_base_ = '../../_base_/pairs/resnet34_resnet18_8xb32_in1k.py'

# Both networks are read at the ends of their stages before the last ReLU, and at the pooled vector.
model = dict(losses=dict(loss_reviewkd=dict(
    type='ReviewKDLoss', loss_weight=1.0, on=dict(
        student=['backbone.layer1.1.relu:input', 'backbone.layer2.1.relu:input', 'backbone.layer3.1.relu:input',
                 'backbone.layer4.1.relu:input', 'neck'],
        teacher=['backbone.layer1.2.relu:input', 'backbone.layer2.3.relu:input', 'backbone.layer3.5.relu:input',
                 'backbone.layer4.2.relu:input', 'neck']))))  # fmt: skip
