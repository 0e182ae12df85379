# The small digits classifiers; the teacher ships with the package.
_base_ = '../../digits/resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmkd_plugin::digits/resnet_teacher.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
