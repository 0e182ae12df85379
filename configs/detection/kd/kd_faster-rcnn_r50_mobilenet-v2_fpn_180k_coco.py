# Temperature and weight are DKD's, untested here: none are published for detection.
_base_ = '../plain/faster-rcnn_mobilenet-v2_fpn_180k_coco.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py'),
    losses=dict(loss_kd=dict(type='KDLoss', on='roi_head.bbox_head.fc_cls', temperature=1.0, loss_weight=1.0)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
