_base_ = 'kd_resnet.py'

# KC-KD: KD on the part of the data that is still worth distilling, 70 % of it in the last epochs.
custom_hooks = [*_base_.custom_hooks, dict(type='KCDHook', interval=7, final_ratio=0.7, alpha=0.03, epsilon_max=0.3)]
