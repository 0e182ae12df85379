_base_ = '../_base_/pairs/gfl_teacher_student_digit_scenes.py'

# With the companion that its authors have, a KD of classes, of sigmoids as these are trained.
model = dict(
    losses=dict(
        loss_ld=dict(type='LDLoss', on='bbox_head', loss_weight=0.25),
        loss_kd=dict(type='QFLKDLoss', on='bbox_head'),
    )
)
