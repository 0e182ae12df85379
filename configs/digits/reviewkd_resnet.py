_base_ = '../_base_/pairs/teacher_student_digits.py'

# The student is read at the ends of its stages, the teacher there before the last ReLU; both at the pooled vector.
# Weight as for CIFAR-100, warm-up in proportion to its 20 of 240 epochs.
model = dict(losses=dict(loss_reviewkd=dict(
    type='ReviewKDLoss', loss_weight=5.0, schedule=dict(warmup=3), on=dict(
        student=['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'backbone.layer4', 'neck'],
        teacher=['backbone.layer1.1.relu:input', 'backbone.layer2.1.relu:input', 'backbone.layer3.1.relu:input',
                 'backbone.layer4.1.relu:input', 'neck']))))  # fmt: skip
