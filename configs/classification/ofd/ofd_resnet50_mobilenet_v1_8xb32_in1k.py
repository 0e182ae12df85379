_base_ = '../../_base_/pairs/resnet50_mobilenet_v1_8xb32_in1k.py'

# Both networks are read at the ends of their stages before the last ReLU.
# Published with batch 128 and learning rate 0.05.
model = dict(losses=dict(loss_ofd=dict(
    type='OFDLoss', loss_weight=1e-4, on=dict(
        student=['backbone.layer1.1.5:input', 'backbone.layer2.1.5:input', 'backbone.layer3.5.5:input',
                 'backbone.layer4.1.5:input'],
        teacher=['backbone.layer1.2.relu:input', 'backbone.layer2.3.relu:input', 'backbone.layer3.5.relu:input',
                 'backbone.layer4.2.relu:input']))))  # fmt: skip
