# A large gap: the teacher that ships with the package, and a student of a 62nd of its parameters.
_base_ = '../../digits/resnet_tiny.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmkd_plugin::digits/resnet_teacher.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
