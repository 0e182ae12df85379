globals().update(__import__('mmkd_plugin').load_config('classification/plain/resnet56_cifar100.py'))
