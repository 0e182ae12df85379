# RTMDet-s teaches RTMDet-tiny on COCO.
# The teacher is mmdet's: its published weights are downloaded.
_base_ = '../../detection/plain/rtmdet_tiny_8xb32-300e_coco.py'

model = dict(
    type='Distilled',
    student='RTMDet',
    teacher=dict(config='mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
