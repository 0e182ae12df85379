# Mean teacher, on labelled data alone: beside the labels, the moving average of the own weights teaches.
_base_ = 'resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(type='Average', momentum=0.01),
    losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, schedule=dict(warmup=5))),
)
