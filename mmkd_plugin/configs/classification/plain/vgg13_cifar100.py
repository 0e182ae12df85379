globals().update(__import__('mmkd_plugin').load_config('classification/plain/vgg13_cifar100.py'))
