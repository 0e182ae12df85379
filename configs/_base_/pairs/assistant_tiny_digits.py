# The last link of a chain: the teacher is the assistant that configs/digits/takd_assistant_resnet.py leaves
# (tools/chain.py).
_base_ = '../../digits/resnet_tiny.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::digits/takd_assistant_resnet.py',
        checkpoint='work_dirs/takd_assistant_resnet/epoch_40.pth',
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
