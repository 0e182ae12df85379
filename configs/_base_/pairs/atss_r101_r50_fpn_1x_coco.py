# ResNet-101 teaches ResNet-50, ATSS on COCO.
# The teacher is mmdet's: its published weights are downloaded.
_base_ = '../../detection/plain/atss_r50_fpn_1x_coco.py'

model = dict(
    type='Distilled',
    student='ATSS',
    teacher=dict(config='mmdet::atss/atss_r101_fpn_1x_coco.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
