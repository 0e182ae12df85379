# ResNet-50 teaches ResNet-18, Faster R-CNN with FPN, on VOC 2007.
# Train the teacher first: its checkpoint is where that run leaves it.
_base_ = '../../detection/plain/faster-rcnn_r18_fpn_voc2007.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(
        config='mmkd_plugin::detection/plain/faster-rcnn_r50_fpn_voc2007.py',
        checkpoint='work_dirs/faster-rcnn_r50_fpn_voc2007/epoch_4.pth',
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
