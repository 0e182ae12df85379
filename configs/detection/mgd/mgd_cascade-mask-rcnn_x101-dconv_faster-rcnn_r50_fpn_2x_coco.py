_base_ = '../../_base_/pairs/cascade-mask-rcnn_x101-dconv_faster-rcnn_r50_fpn_2x_coco.py'

model = dict(
    losses=dict(loss_mgd=dict(type='MGDLoss', on=[f'neck[{i}]' for i in range(4)], mask_ratio=0.45, loss_weight=5e-7))
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
