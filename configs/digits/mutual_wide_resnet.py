# Deep mutual learning of two architectures: the student and a peer twice as wide, each learning from the labels and
# from the other's prediction (T = 1). `tools/publish_model.py --peer wide` writes the wide one.
_base_ = 'resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teachers=dict(
        wide=dict(
            type='Peer',
            model=dict(
                _base_.model,
                backbone=dict(_base_.model.backbone, stem_channels=8, base_channels=8),
                head=dict(_base_.model.head, in_channels=64),
            ),
        )
    ),
    losses=dict(loss_kl=dict(type='KDLoss', on='head.fc', temperature=1.0, learner='each')),
)
