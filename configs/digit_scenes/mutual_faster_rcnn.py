# Mutual learning of two detectors that start from other weights: each learns from the boxes and from where the other's
# neck looks, level by level. (Each samples RoIs of its own, so these cannot be compared.)
_base_ = 'faster_rcnn_student.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teachers=dict(peer=dict(type='Peer', model=dict(_base_.model))),
    losses=dict(loss_at=dict(type='ATLoss', on=[f'neck[{i}]' for i in range(4)], learner='each')),
)
