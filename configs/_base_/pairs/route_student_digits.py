# The last link of a chain: the anchors are what configs/digits/resnet_teacher_route.py leaves (tools/chain.py).
_base_ = '../../digits/resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(
        type='Route',
        config='mmkd_plugin::digits/resnet_teacher_route.py',
        checkpoint='work_dirs/resnet_teacher_route/epoch_{}.pth',
        anchors=[8, 16, 24, 30],
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
