_base_ = '../../_base_/pairs/vgg13_vgg8_cifar100.py'

# Both networks are read at the ends of their stages before the last ReLU.
model = dict(losses=dict(loss_ofd=dict(
    type='OFDLoss', loss_weight=1e-3, on=dict(
        student=['backbone.layer1.3:input', 'backbone.layer2.3:input', 'backbone.layer3.3:input',
                 'backbone.layer4.2:input'],
        teacher=['backbone.layer1.6:input', 'backbone.layer2.6:input', 'backbone.layer3.6:input',
                 'backbone.layer4.5:input']))))  # fmt: skip
