_base_ = '../_base_/old_new_digit_scenes.py'

model = dict(
    losses=dict(loss_ilod=dict(type='ILODLoss', on=['roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg']))
)
