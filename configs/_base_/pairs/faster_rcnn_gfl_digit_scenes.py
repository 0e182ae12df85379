# A two-stage teacher for a one-stage student, both small; the teacher ships with the package.
_base_ = '../../digit_scenes/gfl_student.py'

model = dict(type='Distilled', student='GFL', teacher=dict(config='mmkd_plugin::digit_scenes/faster_rcnn_teacher.py'))
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
