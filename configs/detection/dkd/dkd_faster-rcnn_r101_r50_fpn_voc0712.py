# Temperature and weights are those of COCO, untested here: none are published for VOC.
_base_ = '../plain/faster-rcnn_r50_fpn_voc0712.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(
        config='mmkd_plugin::detection/plain/faster-rcnn_r101_fpn_voc0712.py',
        checkpoint='work_dirs/faster-rcnn_r101_fpn_voc0712/epoch_4.pth',
    ),
    losses=dict(loss_dkd=dict(type='DKDLoss', on='roi_head.bbox_head.fc_cls', alpha=1.0, beta=0.25, temperature=1.0)),
)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='TeacherEvalHook')]
