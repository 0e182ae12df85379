globals().update(__import__('mmkd_plugin').load_config('digits/kc_dkd_resnet.py'))
