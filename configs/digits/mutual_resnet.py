# Deep mutual learning: two students of the same kind that start from other weights, each learning from the labels and
# from the other's prediction (T = 1), updated together. The model is the first of them;
# `tools/publish_model.py --peer peer` writes the other. `custom_hooks=[*_base_.custom_hooks, dict(type='InTurnHook')]`
# updates them in turn, as the paper does.
_base_ = 'resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teachers=dict(peer=dict(type='Peer', model=dict(_base_.model))),
    losses=dict(loss_kl=dict(type='KDLoss', on='head.fc', temperature=1.0, learner='each')),
)
