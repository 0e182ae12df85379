# The second link of a chain: the teacher is what configs/digits/flow_auxiliary_resnet.py leaves (tools/chain.py).
_base_ = '../../digits/resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::digits/flow_auxiliary_resnet.py',
        checkpoint='work_dirs/flow_auxiliary_resnet/epoch_40.pth',
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
