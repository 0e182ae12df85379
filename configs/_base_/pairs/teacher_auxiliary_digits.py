# The first link of a chain: from the teacher that ships with the package to a network that will teach the student.
_base_ = '../../digits/resnet_auxiliary.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmkd_plugin::digits/resnet_teacher.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
