globals().update(__import__('mmkd_plugin').load_config('kd_resnet.py'))
