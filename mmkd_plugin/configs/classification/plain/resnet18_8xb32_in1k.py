globals().update(__import__('mmkd_plugin').load_config('classification/plain/resnet18_8xb32_in1k.py'))
