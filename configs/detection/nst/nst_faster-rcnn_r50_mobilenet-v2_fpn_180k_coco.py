_base_ = '../../_base_/pairs/faster-rcnn_r50_mobilenet-v2_fpn_180k_coco.py'

# At stride 16, where the paper compares on VOC 2007. This student's stages end without a ReLU, so the teacher is
# read before its own. The weight is the one for classification, untested here: none is published for detection.
model = dict(losses=dict(loss_nst=dict(
    type='NSTLoss', on=dict(student='backbone.layer5', teacher='backbone.layer3.5.relu:input'),
    kernel='polynomial', loss_weight=50.0)))  # fmt: skip
