# Cascade Mask R-CNN, ResNeXt-101 with deformable convolutions, teaches Faster R-CNN with ResNet-50, on COCO.
# The teacher is mmdet's: its published weights are downloaded.
_base_ = '../../detection/plain/faster-rcnn_r50_fpn_2x_coco.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmdet::dcn/cascade-mask-rcnn_x101-32x4d-dconv-c3-c5_fpn_1x_coco.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
