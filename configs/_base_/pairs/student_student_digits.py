# A student that learns from its own plain training: the teacher is what configs/digits/resnet_student.py leaves
# (tools/chain.py).
_base_ = '../../digits/resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        config='mmkd_plugin::digits/resnet_student.py',
        checkpoint='work_dirs/resnet_student/epoch_40.pth',
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
