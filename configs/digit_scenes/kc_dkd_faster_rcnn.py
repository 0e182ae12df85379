_base_ = '../dkd_faster_rcnn.py'

# KC-DKD on a detector; our extension, KCD's paper has no detection.
custom_hooks = [*_base_.custom_hooks, dict(type='KCDHook', interval=4, final_ratio=0.7, alpha=0.03, epsilon_max=0.3)]
