# ResNet-101, trained twice as long and on several scales, teaches ResNet-50, GFL on COCO.
# The teacher is mmdet's: its published weights are downloaded.
_base_ = '../../detection/plain/gfl_r50_fpn_1x_coco.py'

model = dict(
    type='Distilled',
    student='GFL',
    teacher=dict(config='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
