_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../../_base_/voc0712.py',
    '../../_base_/schedule_voc.py',
    '../../_base_/default_runtime_det.py',
]

model = dict(bbox_head=dict(num_classes=20))
