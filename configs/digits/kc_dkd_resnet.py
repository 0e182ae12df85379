_base_ = '../dkd_resnet.py'

# KC-DKD.
custom_hooks = [*_base_.custom_hooks, dict(type='KCDHook', interval=7, final_ratio=0.7, alpha=0.03, epsilon_max=0.3)]
