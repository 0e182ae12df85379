# ResNet-101 teaches ResNet-50, FCOS on COCO.
# The teacher is mmdet's: its published weights are downloaded.
_base_ = '../../detection/plain/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py'

model = dict(
    type='Distilled',
    student='FCOS',
    teacher=dict(config='mmdet::fcos/fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
