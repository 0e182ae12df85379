# A small student with room to gain: a quarter of the teacher's parameters, 300 of the 600 training scenes.
_base_ = [
    '../_base_/small_faster_rcnn.py',
    '../_base_/digit_scenes.py',
    '../_base_/schedule_digit_scenes.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=64)),
)
train_dataloader = dict(dataset=dict(images=300))
