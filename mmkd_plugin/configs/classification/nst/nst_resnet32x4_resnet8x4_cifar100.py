globals().update(__import__('mmkd_plugin').load_config('classification/nst/nst_resnet32x4_resnet8x4_cifar100.py'))
