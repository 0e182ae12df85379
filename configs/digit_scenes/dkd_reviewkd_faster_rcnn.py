_base_ = '../_base_/pairs/teacher_student_digit_scenes.py'

model = dict(
    losses=dict(
        loss_dkd=dict(type='DKDLoss', on='roi_head.bbox_head.fc_cls', beta=0.25, temperature=1.0),
        loss_reviewkd=dict(type='ReviewKDLoss', on=[f'neck[{i}]' for i in range(4)], loss_weight=1.0),
    )
)
