globals().update(__import__('mmkd_plugin').load_config('classification/plain/vgg8_cifar100.py'))
