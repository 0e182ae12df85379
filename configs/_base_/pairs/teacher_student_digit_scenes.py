# The small digit scenes detectors; the teacher ships with the package.
_base_ = '../../digit_scenes/faster_rcnn_student.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmkd_plugin::digit_scenes/faster_rcnn_teacher.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
