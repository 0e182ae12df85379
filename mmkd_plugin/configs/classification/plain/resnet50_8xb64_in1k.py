globals().update(__import__('mmkd_plugin').load_config('classification/plain/resnet50_8xb64_in1k.py'))
