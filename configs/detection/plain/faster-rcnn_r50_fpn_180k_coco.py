_base_ = [
    '../../_base_/faster_rcnn_frozen_bn.py',
    '../../_base_/coco_multi_scale.py',
    '../../_base_/schedule_180k.py',
]
