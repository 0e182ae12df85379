globals().update(__import__('mmkd_plugin').load_config('classification/kd/kd_resnet50_mobilenet_v1_8xb64_in1k.py'))
