_base_ = '../../_base_/pairs/fcos_r101_r50-caffe_fpn_gn-head_ms-2x_coco.py'

# The authors' student also begins with the teacher's neck and head.
model = dict(losses=dict(loss_fgd=dict(
    type='FGDLoss', on=[f'neck[{i}]' for i in range(5)],
    temperature=0.8, alpha=1.6e-3, beta=8e-4, gamma=8e-4, lam=8e-6,
)))  # fmt: skip
