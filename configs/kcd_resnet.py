# KC-KD: KD on the part of the data that is still worth distilling, 70 % of it in the last epochs.
_base_ = 'kd_resnet.py'

custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='TeacherEvalHook'),
    dict(type='KCDHook', interval=7, final_ratio=0.7, alpha=0.03, epsilon_max=0.3),
]
