_base_ = '../_base_/pairs/teacher_student_digit_scenes.py'

model = dict(losses=dict(loss_fgd=dict(
    type='FGDLoss', on=[f'neck[{i}]' for i in range(4)],
    alpha=5e-5, beta=2.5e-5, gamma=5e-5, lam=5e-7,
)))  # fmt: skip
