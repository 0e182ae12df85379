# ResNet-101 teaches ResNet-50, Faster R-CNN on one map, on VOC 2007.
# Train the teacher first: its checkpoint is where that run leaves it.
_base_ = '../../detection/plain/faster-rcnn_r50-caffe-c4_voc2007.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(
        config='mmkd_plugin::detection/plain/faster-rcnn_r101-caffe-c4_voc2007.py',
        checkpoint='work_dirs/faster-rcnn_r101-caffe-c4_voc2007/epoch_4.pth',
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
