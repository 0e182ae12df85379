# At stride 16, where the paper compares on VOC 2007. The weight is the one for classification, untested here: none
# is published for detection.
_base_ = '../plain/faster-rcnn_r18_fpn_180k_coco.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),
    losses=dict(loss_nst=dict(type='NSTLoss', on='backbone.layer3', kernel='polynomial', loss_weight=50.0)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
