# ResNet-101 teaches ResNet-50, Faster R-CNN with FPN on COCO.
# The teacher is mmdet's: its published weights are downloaded.
_base_ = '../../detection/plain/faster-rcnn_r50_fpn_2x_coco.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
