# ResNet-101 teaches ResNet-50, RetinaNet, on VOC 07+12.
# Train the teacher first: its checkpoint is where that run leaves it.
_base_ = '../../detection/plain/retinanet_r50_fpn_voc0712.py'

model = dict(
    type='Distilled',
    student='RetinaNet',
    teacher=dict(
        config='mmkd_plugin::detection/plain/retinanet_r101_fpn_voc0712.py',
        checkpoint='work_dirs/retinanet_r101_fpn_voc0712/epoch_4.pth',
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
