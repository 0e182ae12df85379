# What every plain classifier here shares; a config adds the backbone and the head's sizes.
model = dict(
    type='ImageClassifier',
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', loss=dict(type='CrossEntropyLoss')),
)
