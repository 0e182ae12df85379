_base_ = '../../_base_/pairs/resnet56_resnet20_cifar100.py'

# The student is read at the ends of its stages, the teacher there before the last ReLU; both at the pooled vector.
model = dict(losses=dict(loss_reviewkd=dict(
    type='ReviewKDLoss', loss_weight=0.6, schedule=dict(warmup=20), on=dict(
        student=['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck'],
        teacher=['backbone.layer1.8.relu2:input', 'backbone.layer2.8.relu2:input', 'backbone.layer3.8.relu2:input',
                 'neck']))))  # fmt: skip
