# KC-DKD.
_base_ = '../dkd_resnet.py'

custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='TeacherEvalHook'),
    dict(type='KCDHook', interval=7, final_ratio=0.7, alpha=0.03, epsilon_max=0.3),
]
