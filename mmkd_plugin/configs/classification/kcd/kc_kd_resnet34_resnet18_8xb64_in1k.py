globals().update(__import__('mmkd_plugin').load_config('classification/kcd/kc_kd_resnet34_resnet18_8xb64_in1k.py'))
