globals().update(__import__('mmkd_plugin').load_config('classification/kcd/kc_kd_resnet56_resnet20_cifar100.py'))
