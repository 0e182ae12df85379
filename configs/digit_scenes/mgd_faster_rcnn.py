_base_ = '../_base_/pairs/teacher_student_digit_scenes.py'

model = dict(
    losses=dict(loss_mgd=dict(type='MGDLoss', on=[f'neck[{i}]' for i in range(4)], mask_ratio=0.45, loss_weight=5e-7))
)
