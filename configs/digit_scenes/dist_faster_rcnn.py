_base_ = '../_base_/pairs/teacher_student_digit_scenes.py'

model = dict(
    losses=dict(
        loss_dist=dict(type='DISTLoss', on='roi_head.bbox_head.fc_cls', temperature=1.0, loss_weight=1.0),
    )
)
