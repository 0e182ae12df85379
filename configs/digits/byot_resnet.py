# Be your own teacher: exits after the first three stages learn from the labels, from the deepest exit's prediction
# (T = 3) and from its pooled vector; they train the stages with it, and vanish. Weights of labels and predictions are
# mmrazor's on CIFAR-100; that of the vectors, a mean over their elements, is ours.
_base_ = 'resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teachers=dict(
        exits=dict(
            type='Exits',
            after=['backbone.layer1', 'backbone.layer2', 'backbone.layer3'],
            to='backbone.layer4',
            task_loss=dict(loss_weight=0.7),
        )
    ),
    losses=dict(
        loss_kd=dict(
            type='KDLoss',
            learner='exits',
            on=[dict(exits=f'{exit}.fc', student='head.fc') for exit in (0, 1, 2)],
            temperature=3.0,
            loss_weight=0.3,
        ),
        loss_feature=dict(
            type='FitNetLoss',
            learner='exits',
            on=[dict(exits=f'{exit}.pool', student='neck') for exit in (0, 1, 2)],
            regressor='identity',
            loss_weight=1.0,
        ),
    ),
)
