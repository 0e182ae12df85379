globals().update(__import__('mmkd_plugin').load_config('classification/plain/mobilenet_v1_8xb64_in1k.py'))
