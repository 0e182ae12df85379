# The small one-stage digit scenes detectors; the teacher ships with the package.
_base_ = '../../digit_scenes/gfl_student.py'

model = dict(type='Distilled', student='GFL', teacher=dict(config='mmkd_plugin::digit_scenes/gfl_teacher.py'))
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
