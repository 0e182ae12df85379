globals().update(
    __import__('mmkd_plugin').load_config('classification/reviewkd/reviewkd_resnet50_mobilenet_v1_8xb32_in1k.py')
)
