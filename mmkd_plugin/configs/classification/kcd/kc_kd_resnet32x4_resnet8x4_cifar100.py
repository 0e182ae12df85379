globals().update(__import__('mmkd_plugin').load_config('classification/kcd/kc_kd_resnet32x4_resnet8x4_cifar100.py'))
