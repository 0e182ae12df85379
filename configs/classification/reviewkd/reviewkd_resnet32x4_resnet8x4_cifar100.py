_base_ = '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py'

# The student is read at the ends of its stages, the teacher there before the last ReLU; both at the pooled vector.
model = dict(losses=dict(loss_reviewkd=dict(
    type='ReviewKDLoss', loss_weight=5.0, schedule=dict(warmup=20), on=dict(
        student=['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck'],
        teacher=['backbone.layer1.4.relu2:input', 'backbone.layer2.4.relu2:input', 'backbone.layer3.4.relu2:input',
                 'neck']))))  # fmt: skip
