_base_ = '../../_base_/pairs/faster-rcnn_r101_r50_fpn_180k_coco.py'

# FPN's maps have no ReLU, so the regressor has none. The weight is ours, as large as ReviewKD's on these maps, and
# untested: none is published for detection.
model = dict(
    losses=dict(
        loss_fitnet=dict(type='FitNetLoss', on=[f'neck[{i}]' for i in range(5)], regressor='conv', loss_weight=1.0)
    )
)
