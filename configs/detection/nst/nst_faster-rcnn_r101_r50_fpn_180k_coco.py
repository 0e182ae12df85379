_base_ = '../../_base_/pairs/faster-rcnn_r101_r50_fpn_180k_coco.py'

# At stride 16, where the paper compares on VOC 2007. The weight is the one for classification, untested here: none
# is published for detection.
model = dict(losses=dict(loss_nst=dict(type='NSTLoss', on='backbone.layer3', kernel='polynomial', loss_weight=50.0)))
