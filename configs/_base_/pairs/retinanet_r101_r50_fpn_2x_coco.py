# ResNet-101 teaches ResNet-50, RetinaNet on COCO.
# The teacher is mmdet's: its published weights are downloaded.
_base_ = '../../detection/plain/retinanet_r50_fpn_2x_coco.py'

model = dict(
    type='Distilled',
    student='RetinaNet',
    teacher=dict(config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
