_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../../_base_/voc0712.py',
    '../../_base_/schedule_voc.py',
    '../../_base_/default_runtime_det.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))
