globals().update(
    __import__('mmkd_plugin').load_config('classification/reviewkd/reviewkd_resnet34_resnet18_8xb32_in1k.py')
)
