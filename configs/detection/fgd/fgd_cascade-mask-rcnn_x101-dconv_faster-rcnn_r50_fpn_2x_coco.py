_base_ = '../../_base_/pairs/cascade-mask-rcnn_x101-dconv_faster-rcnn_r50_fpn_2x_coco.py'

model = dict(losses=dict(loss_fgd=dict(
    type='FGDLoss', on=[f'neck[{i}]' for i in range(4)],
    alpha=5e-5, beta=2.5e-5, gamma=5e-5, lam=5e-7,
)))  # fmt: skip
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
