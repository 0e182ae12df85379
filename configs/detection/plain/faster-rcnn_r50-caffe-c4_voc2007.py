# One map at stride 16 for everything, as Faster R-CNN was before FPN.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50-caffe-c4.py',
    '../../_base_/voc2007.py',
    '../../_base_/schedule_voc.py',
    '../../_base_/default_runtime_det.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))
