globals().update(__import__('mmkd_plugin').load_config('classification/plain/wrn-40-2_cifar100.py'))
