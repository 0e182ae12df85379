_base_ = '../dkd/dkd_vgg13_vgg8_cifar100.py'

custom_hooks = [*_base_.custom_hooks, dict(type='KCDHook', interval=40, final_ratio=0.7, alpha=0.03, epsilon_max=0.3)]
