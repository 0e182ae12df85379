_base_ = '../../_base_/pairs/gfl_r101_r50_fpn_1x_coco.py'

# The authors' student also begins with the teacher's neck and head.
model = dict(losses=dict(loss_fgd=dict(type='FGDLoss', on=[f'neck[{i}]' for i in range(5)])))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
