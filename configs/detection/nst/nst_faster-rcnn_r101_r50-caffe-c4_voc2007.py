_base_ = '../../_base_/pairs/faster-rcnn_r101_r50-caffe-c4_voc2007.py'

# The NST paper's detection setting as far as mmdet goes: VOC 2007, a Faster R-CNN that reads one map at stride 16,
# and that map compared. What differs: the paper's backbone is an Inception-BN (its layer "4b"), ours are ResNets;
# schedule and image size are mmdet's; the weight is the one for classification. Untested.
model = dict(losses=dict(loss_nst=dict(type='NSTLoss', on='backbone.layer3', kernel='polynomial', loss_weight=50.0)))
