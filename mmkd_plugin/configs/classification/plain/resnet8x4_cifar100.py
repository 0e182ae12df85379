globals().update(__import__('mmkd_plugin').load_config('classification/plain/resnet8x4_cifar100.py'))
