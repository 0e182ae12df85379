globals().update(__import__('mmkd_plugin').load_config('classification/kcd/kc_dkd_vgg13_vgg8_cifar100.py'))
