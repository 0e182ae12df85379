globals().update(__import__('mmkd_plugin').load_config('classification/kcd/kc_kd_wrn-40-2_wrn-16-2_cifar100.py'))
