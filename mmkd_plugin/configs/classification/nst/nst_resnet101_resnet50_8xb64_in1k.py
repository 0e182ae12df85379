globals().update(__import__('mmkd_plugin').load_config('classification/nst/nst_resnet101_resnet50_8xb64_in1k.py'))
